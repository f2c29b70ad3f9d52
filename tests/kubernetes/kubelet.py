"""Two machines that run the gateway's pods as processes, by what their manifests say: user, arguments,
environment, volumes that follow their objects, probes, preStop and grace."""

import base64
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

USER = 65532
MACHINES = {"machine-a": "zone-1", "machine-b": "zone-2"}


class Pod:
    """A pod on its way from being assigned to being gone."""

    def __init__(self, name, address, folder):
        self.name, self.address, self.folder = name, address, folder
        self.process = self.started = self.stopping = self.terminated = None
        self.written, self.ready = {}, False


class Kubelet(threading.Thread):
    """Runs until `stop`. Every pod has an address of 127.1.0.0/16."""

    def __init__(self, plane, curfew, folder):
        super().__init__(daemon=True)
        self.plane, self.curfew, self.folder = plane, curfew, folder
        self.pods, self.addresses, self.running = {}, 0, True
        self.started, self.failure = [], None
        # The fewest pods that were ready at a time since it was last set to None.
        self.fewest = None
        for machine, zone in MACHINES.items():
            self._register(machine, zone)

    def _register(self, machine, zone):
        labels = {"kubernetes.io/hostname": machine, "topology.kubernetes.io/zone": zone}
        plenty = {"cpu": "64", "memory": "64Gi", "pods": "200"}
        node = {"metadata": {"name": machine, "labels": labels}}
        self.plane.call("POST", "/api/v1/nodes", node)
        ready = {"type": "Ready", "status": "True", "reason": "Tests", "message": ""}
        status = {"capacity": plenty, "allocatable": plenty, "conditions": [ready]}
        path = f"/api/v1/nodes/{machine}/status"
        merge = "application/strategic-merge-patch+json"
        self.plane.call("PATCH", path, {"status": status}, merge)

    def run(self):
        try:
            while self.running:
                self._look()
                time.sleep(0.2)
        except Exception as error:  # told by check.py, which waits for what will not come
            self.failure = error
            raise

    def _look(self):
        found = set()
        for pod in self.plane.call("GET", "/api/v1/pods")["items"]:
            if not pod["spec"].get("nodeName"):
                continue
            found.add(pod["metadata"]["uid"])
            self._care_for(pod)
        for uid in set(self.pods) - found:
            self._kill(self.pods.pop(uid))
        ready = sum(pod.ready and pod.stopping is None for pod in self.pods.values())
        self.fewest = ready if self.fewest is None else min(self.fewest, ready)

    def _care_for(self, manifest):
        meta, spec = manifest["metadata"], manifest["spec"]
        pod = self.pods.get(meta["uid"])
        if pod is None:
            self.addresses += 1
            address = f"127.1.{self.addresses // 250}.{self.addresses % 250 + 1}"
            pod = Pod(meta["name"], address, f"{self.folder}/{meta['name']}")
            self.pods[meta["uid"]] = pod
        if meta.get("deletionTimestamp"):
            return self._end(pod, manifest)
        if not self._write_volumes(pod, meta["namespace"], spec):
            return None
        if pod.process is None:
            self._start(pod, manifest)
        elif pod.process.poll() is not None:
            # Started again, as `restartPolicy: Always` has it, a second later.
            if time.monotonic() - pod.started > 1:
                self._start(pod, manifest)
        self._report(pod, manifest)

    def _write_volumes(self, pod, namespace, spec):
        """False while an object, or a key of it, is missing."""
        container = spec["containers"][0]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        for volume in spec["volumes"]:
            if "configMap" in volume:
                kind, name, mode = "configmaps", volume["configMap"]["name"], 0o444
            elif "secret" in volume:
                kind, name, mode = "secrets", volume["secret"]["secretName"], 0o440
            else:
                continue
            found = self.plane.call("GET", f"/api/v1/namespaces/{namespace}/{kind}/{name}")
            if found is None:
                return False
            files = found.get("data", {})
            if kind == "secrets":
                files = {key: base64.b64decode(value).decode() for key, value in files.items()}
            for item in volume.get("secret", {}).get("items", []):
                if item["key"] not in files:
                    return False
            if pod.written.get(name) != files:
                self._write(pod, mounts[volume["name"]], files, mode)
                pod.written[name] = files
        return True

    def _write(self, pod, mount, files, mode):
        """As a kubelet does: a new folder, and one link that is replaced."""
        folder = pod.folder + mount
        os.makedirs(folder, exist_ok=True)
        version = f"..{time.monotonic_ns()}"
        os.mkdir(f"{folder}/{version}")
        for name, content in files.items():
            path = f"{folder}/{version}/{name}"
            with open(path, "w") as file:
                # Paths of the image's own root are paths of this pod's folder.
                file.write(content.replace('"/var/run/secrets', f'"{pod.folder}/var/run/secrets'))
            os.chown(path, 0, USER)
            os.chmod(path, mode)
            if not os.path.islink(f"{folder}/{name}"):
                os.symlink(f"..data/{name}", f"{folder}/{name}")
        os.symlink(version, f"{folder}/..new")
        os.rename(f"{folder}/..new", f"{folder}/..data")

    def _start(self, pod, manifest):
        meta, container = manifest["metadata"], manifest["spec"]["containers"][0]
        fields = {
            "metadata.name": meta["name"],
            "metadata.namespace": meta["namespace"],
            "status.podIP": pod.address,
            "spec.nodeName": manifest["spec"]["nodeName"],
        }
        environment = {}
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                value = fields.get(variable["valueFrom"]["fieldRef"]["fieldPath"], "")
            else:
                value = variable.get("value", "")
                for name, known in environment.items():
                    value = value.replace(f"$({name})", known)
            environment[variable["name"]] = value
        arguments = [argument.replace("/etc/curfew", f"{pod.folder}/etc/curfew") for argument in container["args"]]
        # Every pod has these ports at its address.
        arguments += ["--set", f"server.listen={pod.address}:8080"]
        arguments += ["--set", f"admin.listen={pod.address}:9090"]
        with open(f"{pod.folder}.log", "a") as log:
            pod.process = subprocess.Popen(
                [self.curfew, *arguments],
                env=environment,
                user=USER,
                group=USER,
                extra_groups=[],
                stdout=log,
                stderr=log,
            )
        pod.started = time.monotonic()
        self.started.append(pod.name)

    def _report(self, pod, manifest):
        container = manifest["spec"]["containers"][0]
        ready = self._probe(pod, container["readinessProbe"])
        if ready == pod.ready and manifest.get("status", {}).get("podIP"):
            return
        pod.ready = ready
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        word = "True" if ready else "False"
        conditions = [
            {"type": kind, "status": word, "lastTransitionTime": now}
            for kind in ("Ready", "ContainersReady")
        ]
        state = {"running": {"startedAt": now}}
        status = {
            "phase": "Running",
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "startTime": now,
            "conditions": conditions,
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": ready,
                    "restartCount": 0,
                    "state": state,
                }
            ],
        }
        self._patch_status(manifest, status)

    def _patch_status(self, manifest, status):
        meta = manifest["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        merge = "application/strategic-merge-patch+json"
        self.plane.call("PATCH", path, {"status": status}, merge)

    @staticmethod
    def _probe(pod, probe):
        if pod.process.poll() is not None:
            return False
        url = f"http://{pod.address}:9090{probe['httpGet']['path']}"
        try:
            with urllib.request.urlopen(url, None, 2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _end(self, pod, manifest):
        now = time.monotonic()
        grace = manifest["metadata"]["deletionGracePeriodSeconds"]
        hook = manifest["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        if pod.stopping is None:
            pod.stopping = now
        alive = pod.process is not None and pod.process.poll() is None
        if alive and now - pod.stopping >= grace:
            self._kill(pod)
        elif alive:
            if pod.terminated is None and now - pod.stopping >= hook:
                pod.terminated = now
                pod.process.send_signal(signal.SIGTERM)
            return
        meta = manifest["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}?gracePeriodSeconds=0"
        self.plane.call("DELETE", path)

    @staticmethod
    def _kill(pod):
        if pod.process is not None and pod.process.poll() is None:
            pod.process.kill()
            pod.process.wait()

    def stop(self):
        self.running = False
        self.join(10)
        for pod in self.pods.values():
            self._kill(pod)
