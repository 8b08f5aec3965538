# shellcheck shell=bash
# Read by dist_train.sh and dist_test.sh: what the processes need, and how they are started.

# Processes that wait for each other must not spin on the cores that the others need.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH=$tools/..${PYTHONPATH:+:$PYTHONPATH}

# launch GPUS SCRIPT [arguments of the script]
launch() {
    local gpus=$1 script=$2
    shift 2
    exec "${PYTHON:-python}" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        --nproc_per_node="$gpus" \
        "$tools/$script" "$@"
}
