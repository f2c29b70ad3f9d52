# Commands that one needs; `just --list` shows them.

# All that a change has to pass.
ci:
    bash .ci/run

# k8s/ on a real API server, controller manager and scheduler, which are built once and kept.
kubernetes *arguments:
    bash tests/kubernetes/run {{arguments}}
