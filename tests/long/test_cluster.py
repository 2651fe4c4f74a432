"""The smoke grid on a real Slurm of two nodes, one of which dies mid-way, and on Kubernetes, as far as a stand-in goes.
"""
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.long import smoke

CONF = """ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=cred_expire=10
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
SlurmctldPidFile={L}/run/slurmctld.pid
SlurmctldLogFile={L}/log/slurmctld.log
StateSaveLocation={L}/state
SlurmdPidFile={L}/run/slurmd.%n.pid
SlurmdLogFile={L}/log/slurmd.%n.log
SlurmdSpoolDir={L}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=5
MinJobAge=300
JobRequeue=1
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port=17001 CPUs=2 RealMemory=6000 State=UNKNOWN
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port=17002 CPUs=2 RealMemory=6000 State=UNKNOWN
PartitionName=lab Nodes=node1,node2 Default=YES MaxTime=60 DefaultTime=30 State=UP DefMemPerCPU=500 LLN=YES
"""


class Slurm:
    def __init__(self, folder: Path):
        self.folder, self.nodes = folder, {}
        for name in ("run", "log", "state", "spool/node1", "spool/node2"):
            (folder / name).mkdir(parents=True)
        self.conf = Path("/etc/slurm/slurm.conf")  # where the commands inside a job look
        self.conf.parent.mkdir(exist_ok=True)
        self.conf.write_text(CONF.format(L=folder, host=os.uname().nodename))
        self.env = {**os.environ, "SLURM_CONF": str(self.conf)}

    def start(self) -> None:
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        if not Path("/run/munge/munge.socket.2").exists():
            subprocess.run(["setpriv", "--reuid", "munge", "--regid", "munge", "--init-groups", "/usr/sbin/munged"],
                           check=True)
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SLURM_CONF": str(self.conf)}
        self.controller = subprocess.Popen(["slurmctld", "-D"], cwd="/", env=path, stdout=subprocess.DEVNULL,
                                           stderr=subprocess.STDOUT)
        for name in ("node1", "node2"):  # each in a PID namespace of its own, so that a node can lose all at once
            self.nodes[name] = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "bash", "-c",
                 f"slurmd -D -N {name}; sleep 0"], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        for _ in range(30):
            if self.said("sinfo", "-h", "-o", "%T %D") == "idle 2":
                return
            time.sleep(1)
        raise RuntimeError(f"the nodes are not up: {self.said('sinfo', '-N')}")

    def said(self, *command: str) -> str:
        return subprocess.run(command, env=self.env, capture_output=True, text=True).stdout.strip()

    def busy(self, node: str) -> bool:
        return bool(self.said("squeue", "-h", "-t", "R", "-w", node, "-o", "%i"))

    def lose(self, node: str) -> None:
        self.nodes[node].send_signal(signal.SIGKILL)

    def stop(self) -> None:
        for process in (*self.nodes.values(), self.controller):
            process.kill()
            process.wait()
        self.conf.unlink()


@pytest.fixture
def slurm(tmp_path):
    needs = ("slurmctld", "slurmd", "munged", "unshare")
    if Path("/etc/slurm/slurm.conf").exists():
        pytest.skip("this machine has a Slurm of its own (/etc/slurm/slurm.conf)")
    if os.geteuid() or not all(shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") for name in needs):
        pytest.skip("needs root and Debian's packages: apt-get install slurmctld slurmd slurm-client munge "
                    "slurm-wlm-basic-plugins")
    os.environ["PATH"] += ":/usr/sbin"
    cluster = Slurm(tmp_path / "slurm")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


FLAGS = ("FLAGS=--slurm-no-account --slurm-status-command squeue --slurm-init-seconds-before-status-checks 3 "
         "--latency-wait 5 --default-resources slurm_partition=lab mem_mb=2500 runtime=30")


def test_a_run_on_slurm_survives_the_loss_of_a_node(undisturbed, slurm, tmp_path):
    folder = smoke.clone(tmp_path / "study")
    running, lost = smoke.start(folder, "CLUSTER=slurm", FLAGS, SLURM_CONF=str(slurm.conf)), ""
    for _ in range(600):
        busy = [node for node in slurm.nodes if slurm.busy(node)]
        if not lost and busy and (folder / "outputs/smoke/micro_nli/seed0/02_teacher/models.json").exists():
            time.sleep(5)
            lost = busy[0]
            slurm.lose(lost)
        if running.poll() is not None:
            break
        time.sleep(1)
    assert lost and running.wait(timeout=600) == 0, smoke.said(folder)
    assert slurm.said("sinfo", "-h", "-n", lost, "-o", "%T").startswith("down")
    assert smoke.tables(folder) == undisturbed


KUBECTL = """#!{python}
import json, pathlib, subprocess, sys
home = pathlib.Path({home!r})
if sys.argv[1] == "create":
    made = json.load(sys.stdin)
    box = made["spec"]["template"]["spec"]["containers"][0]
    name = f"job.batch/study-{{len(list(home.iterdir()))}}"
    with open(home / name.replace("/", "-"), "w") as out:
        script = " ".join(box["command"])
        script = f"cd {{box['workingDir']}}; {{script}}; echo done $? > {{out.name}}"
        subprocess.Popen(["bash", "-c", script], start_new_session=True, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    print(name)
else:
    said = (home / sys.argv[2].replace("/", "-")).read_text().split()
    print(json.dumps({{"status": {{}} if not said else {{"succeeded": 1}} if said[1] == "0" else {{"failed": 1}}}}))
"""


def test_a_run_on_kubernetes_submits_each_notebook_as_a_job(undisturbed, tmp_path):
    folder, home = smoke.clone(tmp_path / "study"), tmp_path / "jobs"
    home.mkdir()
    (tmp_path / "bin").mkdir()
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.write_text(KUBECTL.format(python=sys.executable, home=str(home)))
    kubectl.chmod(0o755)
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "STUDY_IMAGE": "an/image", "STUDY_VOLUME": "claim"}
    running = smoke.start(folder, "CLUSTER=kubernetes", "FLAGS=--jobs 2 --latency-wait 5", **env)
    assert running.wait() == 0, smoke.said(folder)
    assert len(list(home.iterdir())) >= 9 and smoke.tables(folder) == undisturbed
