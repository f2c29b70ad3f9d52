"""k8s/ on a real control plane, with pods that run the real binary: what is applied is valid and stays
as it is, and pods come, go, roll and take changes as k8s/README.md says. Prints what it measured; ends
with 1 at the first thing that is otherwise."""

import argparse
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from control_plane import ControlPlane, free_port, until
from kubelet import Kubelet

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PRODUCTION = "overlays/production"
KEY = "the-first-key-of-the-admin-api-0123456789"
NEW_KEY = "the-second-key-of-the-admin-api-0123456789"
SECRET = "a-secret-of-the-tests-that-is-long-enough"
OPTIONS = "    options:\n      disableNameSuffixHash: true\n"


class Tried:
    """The control plane, the machines, and a copy of k8s/ that may be changed."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder, self.rows = arguments, folder, []
        self.manifests = f"{folder}/k8s"
        shutil.copytree(f"{ROOT}/k8s", self.manifests)
        port = free_port()
        self.redis = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", SECRET],
            stdout=subprocess.DEVNULL,
        )
        self._configure(port)
        os.makedirs(f"{folder}/plane")
        try:
            self.plane = ControlPlane(arguments.programs, f"{folder}/plane")
        except BaseException:
            self.redis.kill()
            raise
        # Pods run as another user.
        os.chmod(folder, 0o755)
        binary = shutil.copy(arguments.curfew, f"{folder}/curfew")
        os.makedirs(f"{folder}/pods")
        self.kubelet = Kubelet(self.plane, binary, f"{folder}/pods")
        self.kubelet.start()

    def _configure(self, redis_port):
        text = self.read(f"{PRODUCTION}/curfew.toml")
        text = re.sub(r"(?m)^url = .*$", f'url = "redis://127.0.0.1:{redis_port}"', text)
        text = re.sub(r"(?m)^ca_file = .*\n", "", text)
        text = re.sub(r"(?m)^jwks_file = .*$", 'secret_file = "/var/run/secrets/curfew/keys/jwks.json"', text)
        self.write(f"{PRODUCTION}/curfew.toml", text)
        for name, content in {
            "admin-key": KEY,
            "jwks.json": SECRET,
            "redis-password": SECRET,
            "redis-ca.crt": "unused",
        }.items():
            self.write(f"{PRODUCTION}/secrets/{name}", content)

    def read(self, path):
        with open(f"{self.manifests}/{path}") as file:
            return file.read()

    def write(self, path, text):
        os.makedirs(os.path.dirname(f"{self.manifests}/{path}"), exist_ok=True)
        with open(f"{self.manifests}/{path}", "w") as file:
            file.write(text)

    def change(self, path, old, new):
        text = self.read(path)
        assert old in text, f"{path} has no {old!r}"
        self.write(path, text.replace(old, new))

    def kubectl(self, *arguments, editor=None, may_fail=False, may_warn=False):
        environment = {**os.environ, "KUBECONFIG": self.plane.kubeconfig}
        if editor:
            environment["KUBE_EDITOR"] = editor
        command = [self.arguments.kubectl, *arguments]
        said = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=self.manifests)
        if said.returncode != 0 and not may_fail:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {said.stdout}{said.stderr}")
        assert may_warn or "Warning" not in said.stderr, f"kubectl {' '.join(arguments)}: {said.stderr}"
        return said

    def measured(self, what, began, result):
        row = (what, f"{time.monotonic() - began:.1f} s", result)
        self.rows.append(row)
        print("| " + " | ".join(row) + " |", flush=True)

    def ready(self, count):
        """Waits for exactly so many pods, all of them ready."""

        def as_many():
            assert self.kubelet.failure is None, self.kubelet.failure
            pods = list(self.kubelet.pods.values())
            return len(pods) == count and all(pod.ready for pod in pods) and pods

        return until(f"{count} ready pods", 240, as_many)

    def replicas(self, namespace="curfew"):
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/curfew"
        return self.plane.call("GET", path)["spec"]["replicas"]

    def status_of(self, pod, key):
        request = urllib.request.Request(f"http://{pod.address}:9090/v1/nodes")
        request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, None, 5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def metric(self, pod, name):
        with urllib.request.urlopen(f"http://{pod.address}:9090/metrics", None, 5) as answer:
            found = re.search(rf"(?m)^{name} (.*)$", answer.read().decode())
        return float(found.group(1))

    def stop(self):
        self.kubelet.stop()
        self.plane.stop()
        self.redis.kill()
        self.redis.wait()


def everything_is_valid(tried):
    began = time.monotonic()
    definitions = tried.arguments.programs + "/definitions"
    tried.kubectl("apply", "--server-side", "-f", definitions)
    tried.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    for namespace in ("curfew", "curfew-dev", "gateway", "monitoring"):
        tried.kubectl("create", "--save-config", "namespace", namespace)
    folders = ["base", "overlays/dev", PRODUCTION, f"{PRODUCTION}/secrets"]
    for path in glob.glob(f"{tried.manifests}/components/*"):
        component = os.path.basename(path)
        text = f"namespace: curfew\nresources: [../../base]\ncomponents: [../../components/{component}]\n"
        tried.write(f"only/{component}/kustomization.yaml", text)
        folders.append(f"only/{component}")
    folders += [os.path.relpath(path, tried.manifests) for path in glob.glob(f"{tried.manifests}/examples/*")]
    for folder in folders:
        tried.kubectl("apply", "--dry-run=server", "--validate=strict", "-k", folder)
    tried.kubectl("delete", "namespace", "curfew", "curfew-dev")
    tried.measured("strict validation", began, f"{len(folders)} folders, no warning")


def assert_no_difference(tried, *more):
    said = tried.kubectl("diff", *more, "-k", PRODUCTION, may_fail=True)
    assert said.returncode == 0, f"diff {more}: {said.stdout}{said.stderr}"


def apply_is_stable(tried):
    began = time.monotonic()
    tried.kubectl("apply", "-f", f"{PRODUCTION}/namespace.yaml")
    tried.kubectl("apply", "-k", f"{PRODUCTION}/secrets")
    tried.kubectl("apply", "-k", PRODUCTION)
    tried.ready(3)
    tried.measured("apply", began, "3 pods ready, admitted as restricted")
    began = time.monotonic()
    lines = tried.kubectl("apply", "-k", PRODUCTION).stdout.splitlines()
    # Its selector is always sent, to no effect: the next comparison sees it.
    sent = "poddisruptionbudget."
    changed = [line for line in lines if not line.endswith(" unchanged") and not line.startswith(sent)]
    assert not changed, changed
    assert_no_difference(tried)
    tried.measured("apply again, diff", began, f"{len(lines)} unchanged, no difference")
    began = time.monotonic()
    tried.kubectl("apply", "--server-side", "-k", PRODUCTION)
    assert_no_difference(tried, "--server-side")
    tried.kubectl("apply", "-k", PRODUCTION)
    assert_no_difference(tried)
    tried.kubectl("apply", "--server-side", "-k", PRODUCTION)
    assert_no_difference(tried, "--server-side")
    tried.measured("server-side and back", began, "no conflict, no difference")


def pods_are_told_apart(tried):
    began = time.monotonic()
    pods = tried.ready(3)
    key = f"{tried.folder}/key"
    with open(key, "w") as file:
        file.write(KEY)
    url = f"http://{pods[0].address}:9090"
    command = [tried.arguments.curfew, "nodes", "--url", url, "--key-file", key]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for pod in pods:
        assert pod.name in table and pod.address in table, table
    tried.measured("curfew nodes", began, "names and addresses of all pods")


def scaling_is_left_alone(tried):
    began = time.monotonic()
    tried.kubectl("-n", "curfew", "scale", "deployment/curfew", "--replicas=6")
    tried.ready(6)
    tried.kubectl("apply", "--server-side", "-k", PRODUCTION)
    assert tried.replicas() == 6
    tried.kubectl("apply", "-k", PRODUCTION)
    assert tried.replicas() == 6
    tried.kubectl("-n", "curfew", "scale", "deployment/curfew", "--replicas=3")
    tried.ready(3)
    tried.measured("scale to 6, apply, scale to 3", began, "6 pods after both kinds of apply")
    # An overlay that said how many there are, as bases of older versions did.
    began = time.monotonic()
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: grown\n"
    overlay = "namespace: grown\nresources: [namespace.yaml, ../base]\n"
    tried.write("grown/namespace.yaml", namespace)
    tried.write("grown/kustomization.yaml", overlay + "replicas: [{name: curfew, count: 8}]\n")
    tried.kubectl("apply", "-k", "grown")
    assert tried.replicas("grown") == 8
    edit = ["-n", "grown", "apply", "edit-last-applied", "deployment/curfew"]
    tried.kubectl(*edit, editor="sed -i /replicas:/d")
    tried.write("grown/kustomization.yaml", overlay + "components: [../components/hpa]\n")
    tried.kubectl("apply", "-k", "grown")
    assert tried.replicas("grown") == 8
    tried.kubectl("delete", "namespace", "grown")
    tried.measured("hpa added to 8 pods", began, "8 pods")


def a_rollout_leaves_nobody_out(tried):
    began = time.monotonic()
    tried.kubelet.fewest = None
    tried.kubectl("-n", "curfew", "rollout", "restart", "deployment/curfew")
    tried.kubectl("-n", "curfew", "rollout", "status", "deployment/curfew", "--timeout=300s")
    tried.ready(3)
    assert tried.kubelet.fewest >= 3, tried.kubelet.fewest
    tried.measured("rollout of 3", began, f"never fewer than {tried.kubelet.fewest} ready")
    began = time.monotonic()
    tried.kubelet.fewest = None
    tried.kubectl("drain", "machine-a", "--timeout=300s")
    tried.ready(3)
    assert tried.kubelet.fewest >= 2, tried.kubelet.fewest
    tried.kubectl("uncordon", "machine-a")
    tried.measured("a machine drained", began, f"never fewer than {tried.kubelet.fewest} ready")


def secrets_rotate(tried):
    began = time.monotonic()
    pods, started = tried.ready(3), len(tried.kubelet.started)
    assert all(tried.status_of(pod, KEY) == 200 for pod in pods)
    tried.write(f"{PRODUCTION}/secrets/admin-key", NEW_KEY)
    tried.kubectl("apply", "-k", f"{PRODUCTION}/secrets")
    until("new key", 60, lambda: all(tried.status_of(pod, NEW_KEY) == 200 for pod in pods))
    assert all(tried.status_of(pod, KEY) == 401 for pod in pods)
    assert len(tried.kubelet.started) == started, "pods were started again"
    tried.measured("admin key rotated", began, "in force on 3 pods, none restarted")


def configurations_change(tried):
    name = "curfew_config_last_reload_successful"
    path, kustomization = f"{PRODUCTION}/curfew.toml", f"{PRODUCTION}/kustomization.yaml"
    good = tried.read(path)
    began = time.monotonic()
    pods, started = tried.ready(3), len(tried.kubelet.started)
    tried.write(path, good + "\n[surprise]\n")
    tried.kubectl("apply", "-k", PRODUCTION)
    until("refusal", 60, lambda: all(tried.metric(pod, name) == 0 for pod in pods))
    tried.ready(3)
    tried.write(path, good)
    tried.kubectl("apply", "-k", PRODUCTION)
    until("reload", 60, lambda: all(tried.metric(pod, name) == 1 for pod in pods))
    assert len(tried.kubelet.started) == started, "pods were started again"
    tried.measured("wrong configuration, reloaded", began, "refused by 3 pods, none restarted")

    began = time.monotonic()
    tried.change(kustomization, OPTIONS, "")
    tried.kubectl("apply", "-k", PRODUCTION)
    tried.kubectl("-n", "curfew", "rollout", "status", "deployment/curfew", "--timeout=300s")
    tried.ready(3)
    tried.kubelet.fewest = None
    tried.write(path, good + "\n[surprise]\n")
    tried.kubectl("apply", "-k", PRODUCTION)
    status = ["-n", "curfew", "rollout", "status", "deployment/curfew", "--timeout=30s"]
    assert tried.kubectl(*status, may_fail=True).returncode != 0, "a wrong configuration was rolled out"
    # It warns that the next apply will take the undone change up again, unless the file is put right.
    tried.kubectl("-n", "curfew", "rollout", "undo", "deployment/curfew", may_warn=True)
    tried.kubectl("-n", "curfew", "rollout", "status", "deployment/curfew", "--timeout=60s")
    tried.ready(3)
    assert tried.kubelet.fewest >= 3, tried.kubelet.fewest
    tried.measured("wrong configuration, rolled out, undone", began, f"never fewer than {tried.kubelet.fewest} ready")
    tried.write(path, good)


def what_is_deleted_is_gone(tried):
    began = time.monotonic()
    for name in ("admin-key", "jwks.json", "redis-password", "redis-ca.crt"):
        os.remove(f"{tried.manifests}/{PRODUCTION}/secrets/{name}")
    tried.kubectl("diff", "-k", PRODUCTION, may_fail=True)
    tried.kubectl("delete", "-k", PRODUCTION, "--timeout=240s")
    until("end of all pods", 120, lambda: not tried.kubelet.pods)
    left = tried.plane.call("GET", "/api/v1/namespaces/curfew")
    assert left is None, left
    tried.measured("delete, without the secrets' files", began, "nothing left")


def main():
    parser = argparse.ArgumentParser()
    for name in ("programs", "curfew", "kubectl"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--keep", action="store_true", help="leave the folder with all logs")
    arguments = parser.parse_args()
    for name in ("programs", "curfew", "kubectl"):
        setattr(arguments, name, os.path.abspath(getattr(arguments, name)))
    folder = tempfile.mkdtemp(prefix="curfew-kubernetes-")
    tried = Tried(arguments, folder)
    print("| what | time | result |\n| --- | --- | --- |")
    try:
        for check in (
            everything_is_valid,
            apply_is_stable,
            pods_are_told_apart,
            scaling_is_left_alone,
            a_rollout_leaves_nobody_out,
            secrets_rotate,
            configurations_change,
            what_is_deleted_is_gone,
        ):
            check(tried)
    except AssertionError as error:
        print(f"{check.__name__}: {error}\nlogs: {folder}", file=sys.stderr)
        arguments.keep = True
        return 1
    finally:
        tried.stop()
        if not arguments.keep:
            shutil.rmtree(folder)
    print(f"{len(tried.rows)} checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
