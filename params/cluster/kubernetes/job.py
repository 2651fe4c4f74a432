"""What Snakemake's generic executor calls: submit a job script to Kubernetes, tell how a job stands.

    python job.py submit --cpu 2 --mem-mb 8000 --gpu 1 SCRIPT      # prints the job's name, such as job.batch/study-abc12
    python job.py status NAME                                      # prints running, success or failed
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path


def manifest(script: str, cpu: int, mem_mb: int, gpu: int) -> dict:
    """The job: one container on the volume that holds this checkout, which runs the script there and is not tried again."""
    here = Path.cwd()
    missing = [name for name in ("STUDY_IMAGE", "STUDY_VOLUME") if not os.environ.get(name)]
    if missing:
        sys.exit(f"{missing[0]} is not set: params/cluster/kubernetes/config.yaml says what it must name")
    needs = {"cpu": str(cpu), "memory": f"{mem_mb}Mi"} | ({"nvidia.com/gpu": str(gpu)} if gpu else {})
    container = {"name": "notebook", "image": os.environ["STUDY_IMAGE"], "workingDir": str(here),
                 "command": ["bash", str(Path(script).resolve())], "resources": {"requests": needs, "limits": needs},
                 "env": [{"name": "PATH", "value": f"{here}/.venv/bin:/usr/local/bin:/usr/bin:/bin"}],
                 "volumeMounts": [{"name": "study", "mountPath": str(here.parent)}]}
    pod = {"restartPolicy": "Never", "containers": [container],
           "volumes": [{"name": "study", "persistentVolumeClaim": {"claimName": os.environ["STUDY_VOLUME"]}}]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"generateName": "study-"},
            "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": 86400, "template": {"spec": pod}}}


def submit(script: str, cpu: int, mem_mb: int, gpu: int) -> str:
    made = subprocess.run(["kubectl", "create", "-f", "-", "-o", "name"], input=json.dumps(manifest(script, cpu, mem_mb, gpu)),
                          capture_output=True, text=True)
    if made.returncode:
        sys.exit(f"kubectl could not create the job: {made.stderr.strip()}")
    return made.stdout.strip()


def status(name: str) -> str:
    found = subprocess.run(["kubectl", "get", name, "-o", "json"], capture_output=True, text=True)
    if found.returncode:
        return "failed" if "NotFound" in found.stderr else "running"  # a moment without the API server is no failure
    said = json.loads(found.stdout).get("status", {})
    return "success" if said.get("succeeded") else "failed" if said.get("failed") else "running"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ways = parser.add_subparsers(dest="way", required=True)
    one = ways.add_parser("submit")
    for name in ("--cpu", "--mem-mb", "--gpu"):
        one.add_argument(name, type=int, required=True)
    one.add_argument("script")
    ways.add_parser("status").add_argument("name")
    given = parser.parse_args()
    print(status(given.name) if given.way == "status" else submit(given.script, given.cpu, given.mem_mb, given.gpu))


if __name__ == "__main__":
    main()
