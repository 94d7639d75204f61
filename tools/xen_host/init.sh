#!/bin/sh
# The first process of the Xen host: Xen's own services, a bridge, sshd, and nothing else, so that it is up in seconds when emulated.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /dev/pts /dev/shm /run/sshd /run/lock /run/xen /run/xenstored /var/log/xen/console
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
hostname xen
modprobe -a xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs virtio_net bridge xen-netback tun
mount -t xenfs xenfs /proc/xen

ip link set lo up
ip link add xenbr0 type bridge
ip link set eth0 master xenbr0
ip link set eth0 up
ip link set xenbr0 up
ip address add 10.0.2.15/24 dev xenbr0
ip route add default via 10.0.2.2

xen=$(echo /usr/lib/xen-[0-9]*/bin)
"$xen/xenstored" --pid-file /run/xen/xenstored.pid
"$xen/xen-init-dom0"
"$xen/xenconsoled" --log=all --log-dir=/var/log/xen/console --pid-file=/run/xen/xenconsoled.pid
/usr/sbin/sshd
xl list > /dev/null && echo 'xen-host: up'
while :; do
  wait
  sleep 3600
done
