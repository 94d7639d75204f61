#!/bin/sh
# Runs in a privileged container of the DaemonSet: hands the programs to the node and runs runu-node there, in the node's own namespaces.
set -eu
action=${1:-install}

on_node() { nsenter -t 1 -m -u -i -n -- "$@"; }

directory=$(on_node mktemp -d /run/unifleet-runu.XXXXXX)
trap 'on_node rm -rf "$directory"' EXIT
secrets=/var/run/secrets/kubernetes.io/serviceaccount
cat >/tmp/kubeconfig <<EOF
{"apiVersion": "v1", "kind": "Config", "current-context": "node",
 "clusters": [{"name": "c", "cluster": {"server": "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT",
   "certificate-authority-data": "$(base64 -w 0 <$secrets/ca.crt)"}}],
 "users": [{"name": "u", "user": {"token": "$(cat $secrets/token)"}}],
 "contexts": [{"name": "node", "context": {"cluster": "c", "user": "u"}}]}
EOF
tar -C /payload -cf - . | on_node tar -C "$directory" -xf -
on_node sh -c "umask 077; cat >$directory/kubeconfig" </tmp/kubeconfig
on_node mkdir "$directory/boot"
on_node tar -C "$directory/boot" -xzf "$directory/programs.tar.gz"
on_node python3 -I "$directory/boot/bin/runu-node" "$action" --archive "$directory/programs.tar.gz" --manifest "$directory/MANIFEST" \
  --version "$(cat /payload/VERSION)" --kubeconfig "$directory/kubeconfig" --node "$NODE_NAME"
