#!/usr/bin/env bash
# A cluster for the time of one Slurm job, and the command given to this script on it:
#   sbatch --nodes=4 --cpus-per-task=16 deploy/slurm.sh extract --dataset … --backbone … --out s3://bucket/features
#   sbatch --nodes=2 --gpus-per-node=4 deploy/slurm.sh extract …         one executor per GPU
# An array of independent processes (`--task`, see the README) does without any of this; a cluster is for what has to be put together.
#SBATCH --job-name=featlab
#SBATCH --ntasks-per-node=1
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=${FEATLAB_PORT:-50050}
url=http://$head:$port
FEATLAB_CLUSTER_TOKEN=${FEATLAB_CLUSTER_TOKEN:-$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')}
export FEATLAB_CLUSTER_TOKEN

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap --cpus-per-task=1 \
    featlab cluster scheduler --bind "0.0.0.0:$port" &

# On every node: an executor per GPU, or one for all its cores.
executors='
    gpus=${SLURM_GPUS_ON_NODE:-0}
    start() { featlab cluster executor --scheduler '"$url"' --bind 0.0.0.0:0 --advertise "$(hostname)" --name "$(hostname -s)-$1" --patience 300 & }
    if [ "$gpus" -gt 0 ]; then
        for gpu in $(seq 0 $((gpus - 1))); do
            CUDA_VISIBLE_DEVICES=$gpu RAYON_NUM_THREADS=$(( ${SLURM_CPUS_PER_TASK:-1} / gpus )) start "gpu$gpu"
        done
    else
        RAYON_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} start cpu
    fi
    wait
'
srun --overlap --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash -c "$executors" &

until featlab cluster status "$url" >/dev/null 2>&1; do sleep 1; done
status=0
featlab "$@" --cluster "$url" || status=$?
kill $(jobs -p) 2>/dev/null || true
exit "$status"
