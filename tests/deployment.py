#!/usr/bin/env python3
"""Checks the files of examples/cluster: the manifests against Kubernetes' own schema, strictly, and what
schemas do not say.

usage: deployment.py, in an environment with kubernetes-validate
"""

import json
import pathlib
import sys

import kubernetes_validate
import yaml

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "examples" / "cluster"
VERSION = "1.30"


def manifests():
    for path in sorted((FOLDER / "kubernetes").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text()):
                yield path.name, document


def manifests_are_valid():
    for name, manifest in manifests():
        try:
            kubernetes_validate.validate(manifest, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{name}, {manifest['kind']}: {error.message}") from error


def misspelt_manifests_are_not():
    _, deployment = next(each for each in manifests() if each[1]["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")
    try:
        kubernetes_validate.validate(deployment, VERSION, strict=True)
    except kubernetes_validate.ValidationError:
        return
    raise AssertionError("a misspelt field was not noticed")


def manifests_fit_together():
    found = {(each["kind"], each["metadata"]["name"]): each for _, each in manifests()}
    deployment = found["Deployment", "balter"]["spec"]["template"]
    labels, pod = deployment["metadata"]["labels"], deployment["spec"]
    container = pod["containers"][0]
    peers = next(arg for arg in container["args"] if arg.startswith("--peers="))
    headless = found["Service", peers.removeprefix("--peers=")]["spec"]
    assert headless["clusterIP"] == "None" and headless["publishNotReadyAddresses"] is True
    for service in (headless, found["Service", "balter"]["spec"]):
        assert service["selector"].items() <= labels.items()
        names = {port["name"]: port for port in container["ports"]}
        for port in service["ports"]:
            target = names[port["targetPort"]]
            assert (target["containerPort"], target["protocol"]) == (port["port"], port["protocol"])
    for kind in ("NetworkPolicy", "PodDisruptionBudget"):
        spec = found[kind, "balter"]["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        assert selector["matchLabels"].items() <= labels.items()
    # The pod-security level of the namespace: restricted.
    level = found["Namespace", "balter"]["metadata"]["labels"]
    assert level["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "Localhost"
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    # The static CPU manager gives cores to those who ask for whole ones, and for no more than that.
    resources = container["resources"]
    assert resources["requests"] == resources["limits"] and resources["limits"]["cpu"].isdigit()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == "/health"


def all_manifests_are_applied():
    kustomization = yaml.safe_load((FOLDER / "kubernetes" / "kustomization.yaml").read_text())
    files = {path.name for path in (FOLDER / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files


def compose_is_tight():
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    nodes = {name: each for name, each in compose["services"].items() if name.startswith("node-")}
    assert len(nodes) == 3
    for node in nodes.values():
        assert all(port.startswith("127.0.0.1:") for port in node["ports"]), node["ports"]
        profile = next(each for each in node["security_opt"] if each.startswith("seccomp="))
        json.loads((FOLDER / profile.removeprefix("seccomp=")).read_text())
        assert node["cap_drop"] == ["ALL"] and node["read_only"] is True
        assert set(node["secrets"]) <= set(compose["secrets"])
        build = node["build"]
        context = (FOLDER / build["context"]).resolve()
        assert (context / build["dockerfile"]).is_file()


def no_secret_is_kept_here():
    assert not (FOLDER / "token").exists() or "token" in (FOLDER / ".gitignore").read_text().split()
    assert all(each["kind"] != "Secret" for _, each in manifests())


CHECKS = [
    manifests_are_valid, misspelt_manifests_are_not, manifests_fit_together,
    all_manifests_are_applied, compose_is_tight, no_secret_is_kept_here,
]
failed = 0
for check in CHECKS:
    try:
        check()
    except Exception as error:  # all of them are to be told
        failed += 1
        print(f"{check.__name__}: {type(error).__name__}: {error}")
print(f"deployment: {len(CHECKS) - failed} passed, {failed} failed")
sys.exit(1 if failed else 0)
