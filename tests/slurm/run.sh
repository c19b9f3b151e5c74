#!/usr/bin/env bash
# make test-slurm: a Slurm of one node on this machine, on loopback, and the tests that need one; removed again at the end,
# also after a failure. Needs root and Debian's packages. Recipe: slurm-wlm 22.05, no accounting, no cgroups.
set -euo pipefail
cd "$(dirname "$0")/../.."
place=$(mktemp -d)
chmod 755 "$place"
host=$(hostname -s)
export SLURM_CONF="$place/slurm.conf"

cleanup() {
  set +e
  for daemon in slurmctld slurmd munged; do pkill -x "$daemon"; done
  sleep 1
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge slurm-wlm slurmctld slurmd slurm-client munge >/dev/null 2>&1
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y autoremove --purge >/dev/null 2>&1
  .venv/bin/uv pip uninstall --quiet --python .venv hydra-submitit-launcher submitit
  rm -rf "$place"
}
trap cleanup EXIT

apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends slurm-wlm munge >/dev/null
.venv/bin/uv pip install --quiet --python .venv "hydra-submitit-launcher==1.2.0" "submitit==1.5.4"

mkdir -p /run/munge "$place"/{state,spool,log}
chown munge:munge /run/munge
runuser -u munge -- /usr/sbin/munged
cat >"$SLURM_CONF" <<EOF
ClusterName=layerlab
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldLogFile=$place/log/slurmctld.log
SlurmdLogFile=$place/log/slurmd.log
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
JobRequeue=1
KillWait=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=low Nodes=$host Default=YES PriorityTier=1 GraceTime=0 State=UP
PartitionName=high Nodes=$host PriorityTier=10 PreemptMode=OFF State=UP
EOF
slurmctld
slurmd
for _ in $(seq 60); do sinfo -h -o %t 2>/dev/null | grep -q idle && break; sleep 1; done
sinfo
LAYERLAB_TEST_SLURM=1 .venv/bin/python -m pytest -n 0 -m "slow or not slow" tests/slurm
