#!/usr/bin/env bash
# Put the workshop's own tools (next, hint, status, share) into the cluster, as the ConfigMap workshop-tools.
#   class/tools.sh            with kubectl, into the namespace ml-security-class
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
    "") ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' class/tools.sh && exit 0 ;;
    *) echo "error: tools.sh takes no argument $1: type class/tools.sh --help." >&2 && exit 2 ;;
esac
command -v kubectl >/dev/null || { echo "error: kubectl is not installed: install it, and set its context." >&2; exit 2; }
kubectl create configmap workshop-tools --namespace ml-security-class --dry-run=client --output yaml \
    --from-file=workshop.sh --from-file=scripts --from-file=workshop=scripts/bin/workshop \
    --from-file=record.py=demo-malicious/exercises/record.py \
    --from-file=exercises-1.md=demo-malicious/EXERCISES.md \
    --from-file=exercises-2.md=demo-poisoning/EXERCISES.md \
    --from-file=exercises-3.md=demo-supply-chain/EXERCISES.md |
    kubectl apply --server-side --filename -
