# Commands that one needs; `just --list` shows them.

# All that a change has to pass.
ci:
    bash .ci/run

# k8s/ on a real API server, controller manager and scheduler, which are built once and kept.
kubernetes *arguments:
    bash tests/kubernetes/run {{arguments}}

# The tests of Redis against Redis 7.0, Redis 8.0 and Valkey 8.1, the latter two of Debian 13, fetched and kept.
redis-matrix *arguments:
    bash tests/redis/matrix {{arguments}}
