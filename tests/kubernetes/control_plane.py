"""A Kubernetes control plane on loopback: etcd, API server, controller manager, scheduler."""

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

TOKEN = "token-of-the-tests"


class Refused(AssertionError):
    """The API server's answer to a request it does not grant."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, seconds, condition):
    """Waits for a condition, and returns what it gives."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {seconds} s")
        time.sleep(0.1)


class ControlPlane:
    """Started when made; `stop` ends it."""

    def __init__(self, programs, folder):
        self.folder, self.processes = folder, []
        try:
            self._begin(programs)
        except BaseException:
            self.stop()
            raise

    def _begin(self, programs):
        folder = self.folder
        self.url = f"https://127.0.0.1:{free_port()}"
        self.context = ssl._create_unverified_context()
        self._files()
        client, peer = free_port(), free_port()
        self._start(
            f"{programs}/etcd",
            f"--data-dir={folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )
        self._start(
            f"{programs}/kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{client}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.url.rsplit(':', 1)[1]}",
            f"--cert-dir={folder}/certificates",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/account.pub",
            f"--service-account-signing-key-file={folder}/account.key",
            f"--token-auth-file={folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
        )
        until("API server", 60, self._ready)
        self._start(
            f"{programs}/kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={folder}/account.key",
            "--leader-elect=false",
            f"--secure-port={free_port()}",
            # No kubelet of ours renews a lease.
            "--node-monitor-grace-period=24h",
        )
        self._start(
            f"{programs}/kube-scheduler",
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            f"--secure-port={free_port()}",
        )

    def _files(self):
        folder = self.folder
        key = f"{folder}/account.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        subprocess.run(
            ["openssl", "rsa", "-in", key, "-pubout", "-out", f"{folder}/account.pub"],
            check=True,
            capture_output=True,
        )
        with open(f"{folder}/tokens.csv", "w") as file:
            file.write(f'{TOKEN},tests,tests,"system:masters"\n')
        self.kubeconfig = f"{folder}/kubeconfig"
        cluster = {"server": self.url, "insecure-skip-tls-verify": True}
        with open(self.kubeconfig, "w") as file:
            json.dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "tests", "cluster": cluster}],
                    "users": [{"name": "tests", "user": {"token": TOKEN}}],
                    "contexts": [
                        {"name": "tests", "context": {"cluster": "tests", "user": "tests"}}
                    ],
                    "current-context": "tests",
                },
                file,
            )

    def _start(self, program, *arguments):
        name = os.path.basename(program)
        with open(f"{self.folder}/{name}.log", "w") as log:
            process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
        self.processes.append((name, process))

    def _ready(self):
        for name, process in self.processes:
            if process.poll() is not None:
                raise AssertionError(f"{name} ended, see {self.folder}/{name}.log")
        try:
            return self.call("GET", "/readyz", text=True) == "ok"
        except (Refused, urllib.error.URLError, ConnectionError):
            return False

    def call(self, method, path, body=None, kind="application/json", text=False):
        """One request to the API server; None where there is no such object."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        data = None
        if body is not None:
            request.add_header("Content-Type", kind)
            data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, 20, context=self.context) as answer:
                content = answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise Refused(f"{method} {path}: {error.code} {error.read().decode()}") from None
        return content if text else json.loads(content)

    def stop(self):
        for _, process in reversed(self.processes):
            process.kill()
        for _, process in self.processes:
            process.wait()
