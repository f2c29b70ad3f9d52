"""Prints the YAML documents of standard input as one JSON array. Secrets are decoded into stringData."""

import base64
import json
import sys

import yaml

documents = [document for document in yaml.safe_load_all(sys.stdin) if document is not None]
for document in documents:
    if document.get("kind") == "Secret":
        decoded = document.setdefault("stringData", {})
        for key, value in document.get("data", {}).items():
            decoded[key] = base64.b64decode(value).decode()
json.dump(documents, sys.stdout)
