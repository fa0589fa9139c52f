"""The files of deploy/: what the programs that read them say, and rules that a careless edit would break."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fronts import find_program, replace_all
from postgres import postgres_server
from self_signed import Certificate

from curbside.server.config import KeyCommand, load_config

SECRET = {"CURBSIDE_DATABASE_URL": "postgres://curbside:x@db.example/curbside", "CURBSIDE_BUS_NATS": "tls://n.example"}


@pytest.fixture(scope="session")
def deploy(root: Path) -> Path:
    """The folder."""
    return root / "deploy"


# --- configuration ----------------------------------------------------------------------------------


def test_the_examples_are_configurations(deploy: Path) -> None:
    single = load_config(deploy / "curbside.toml", {})
    assert single.host == "127.0.0.1"
    assert single.proxy.trusted == ("127.0.0.1", "::1")
    cluster = load_config(deploy / "kubernetes/curbside.toml", SECRET)
    assert cluster.bus.is_shared
    assert isinstance(cluster.database_key, KeyCommand), "files of a Secret belong to root"
    assert cluster.blobs.bucket


def test_what_is_commented_out_is_a_configuration_too(deploy: Path, tmp_path: Path) -> None:
    text = (deploy / "curbside.toml").read_text("utf-8")
    head, _, rest = text.partition("# [bus]")
    whole = head + "[bus]" + re.sub(r"^# ", "", rest, flags=re.MULTILINE)
    path = tmp_path / "curbside.toml"
    path.write_text(whole, "utf-8")
    config = load_config(path, SECRET)
    assert (config.bus.shared, config.blobs.bucket) == (True, "curbside")


# --- systemd ----------------------------------------------------------------------------------------


def test_units_are_units(deploy: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (deploy / "systemd").iterdir())
    assert len(names) == 5
    for name in names:
        text = (deploy / "systemd" / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("/opt/curbside/bin/curbside", sys.executable), "utf-8")
    command = [find_program("systemd-analyze"), "verify", "--man=no", *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if any(name.partition("@")[0] in line for name in names)]
    assert (done.returncode, told) == (0, []), done.stderr


@pytest.mark.parametrize("name", ["curbside.service", "curbside@.service"])
def test_a_breached_server_can_do_little(deploy: Path, name: str) -> None:
    path = deploy / "systemd" / name
    command = [find_program("systemd-analyze"), "security", "--offline=yes", "--threshold=15", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-400:]


def test_the_template_differs_from_the_single_unit_where_it_must(deploy: Path) -> None:
    single, template = (
        set((deploy / "systemd" / name).read_text("utf-8").splitlines())
        for name in ("curbside.service", "curbside@.service")
    )
    changed = {line.partition("=")[0] for line in single ^ template if not line.startswith("#")}
    assert changed == {"Description", "PartOf", "StateDirectory", "Environment", "WantedBy"}


# --- engines ----------------------------------------------------------------------------------------


def test_nats_reads_its_configuration(deploy: Path, tmp_path: Path, certificate: Certificate) -> None:
    text = replace_all(
        (deploy / "engines/nats.conf").read_text("utf-8"),
        [
            (r"/etc/nats/(server|ca)\.pem", str(certificate.chain)),
            (r"/etc/nats/server\.key", str(certificate.key)),
        ],
    )
    for number, found in enumerate((text, re.sub(r"^# (?=cluster|  |\})", "", text, flags=re.MULTILINE))):
        path = tmp_path / f"nats-{number}.conf"
        path.write_text(found, "utf-8")
        program = Path(sys.executable).parent / "nats-server"
        environment = {**os.environ, "CURBSIDE_NATS_PASSWORD": "x"}
        command = [str(program), "-t", "-c", str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_postgresql_reads_its_configuration(deploy: Path) -> None:
    given = (deploy / "engines/postgresql.conf").read_text("utf-8")
    text = replace_all(given, [(r"^ssl = on$", "")])  # the tests' own PostgreSQL is built without it
    names = re.findall(r"^([a-z_]+) =", text, flags=re.MULTILINE)
    assert len(names) > 20
    server = postgres_server()
    folder = server.folder / "example"
    folder.mkdir(exist_ok=True)
    (folder / "postgresql.conf").write_text(text, "utf-8")
    if server._account is not None:
        for path in (folder, folder / "postgresql.conf"):
            shutil.chown(path, server._account)
    for name in names:
        server._run("postgres", "-D", str(folder), "-C", name)
    (folder / "postgresql.conf").write_text(text + "shared_bufers = 1GB\n", "utf-8")
    with pytest.raises(AssertionError, match="shared_bufers"):
        server._run("postgres", "-D", str(folder), "-C", "fsync")


# --- Kubernetes -------------------------------------------------------------------------------------


def read_documents(folder: Path) -> dict[str, Any]:
    """Every document, by kind."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text("utf-8")):
            assert document["kind"] not in found, path.name
            found[document["kind"]] = document
    return found


@pytest.fixture(scope="session")
def documents(deploy: Path) -> dict[str, Any]:
    """What is in deploy/kubernetes."""
    return read_documents(deploy / "kubernetes")


def test_the_kustomization_names_every_file_but_the_example(deploy: Path, documents: dict[str, Any]) -> None:
    resources = set(documents["Kustomization"]["resources"])
    files = {path.name for path in (deploy / "kubernetes").glob("*.yaml")}
    assert files - resources == {"kustomization.yaml", "secret.example.yaml"}
    assert {image["name"] for image in documents["Kustomization"]["images"]} == {"curbside"}
    assert all(image["newTag"] not in ("", "latest") for image in documents["Kustomization"]["images"])


def find_pod_faults(pod: dict[str, Any]) -> Iterator[str]:
    """What a pod of ours must not be without."""
    context = pod.get("securityContext", {})
    if not context.get("runAsNonRoot") or not context.get("runAsUser"):
        yield "runs as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "has a token of the cluster"
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
            yield "has privileges"
        if not own.get("readOnlyRootFilesystem"):
            yield "writes to its root file system"
        if not container.get("resources", {}).get("limits", {}).get("memory"):
            yield "no limit of memory"
        for probe, path in (("livenessProbe", "live"), ("readinessProbe", "ready"), ("startupProbe", "live")):
            if container.get(probe, {}).get("httpGet", {}).get("path") != f"/v1/health/{path}":
                yield f"no {probe}"
        for variable in container.get("env", ()):
            if "value" in variable:
                yield f"{variable['name']} is in the open"


def test_the_pod_is_hardened(documents: dict[str, Any]) -> None:
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    assert list(find_pod_faults(pod)) == []
    bare = {"containers": [{"name": "a", "env": [{"name": "PASSWORD", "value": "x"}]}]}
    assert len(list(find_pod_faults(bare))) == 10, "the check finds what it looks for"


def test_the_parts_fit_together(deploy: Path, documents: dict[str, Any]) -> None:
    deployment, service, ingress = (documents[kind]["spec"] for kind in ("Deployment", "Service", "Ingress"))
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        deployment["selector"]["matchLabels"],
        service["selector"],
        documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert documents["PodDisruptionBudget"]["spec"]["minAvailable"] < deployment["replicas"]
    assert {port["targetPort"] for port in service["ports"]} <= {port["name"] for port in container["ports"]}
    backend = ingress["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == documents["Service"]["metadata"]["name"]
    config = load_config(deploy / "kubernetes/curbside.toml", SECRET)
    assert config.public_urls == (f"https://{ingress['rules'][0]['host']}",)
    assert {port["containerPort"] for port in container["ports"]} == {config.port}
    (wait,) = re.findall(r"sleep\((\d+)\)", container["lifecycle"]["preStop"]["exec"]["command"][-1])
    slowest = int(wait) + config.drain.notice_seconds + config.drain.spread_seconds + 20
    assert pod["terminationGracePeriodSeconds"] >= slowest
    assert config.drain.notice_seconds >= 2 * container["readinessProbe"]["periodSeconds"]
    timeouts = documents["Ingress"]["metadata"]["annotations"]
    assert int(timeouts["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > 3 * config.limits.ping_seconds


def test_every_secret_that_is_referred_to_is_in_the_example(documents: dict[str, Any]) -> None:
    keys = set(documents["Secret"]["stringData"])
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    used = {each["valueFrom"]["secretKeyRef"]["key"] for each in pod["containers"][0]["env"]}
    for volume in pod["volumes"]:
        used |= {item["key"] for item in volume.get("secret", {}).get("items", ())}
    assert used == keys
    assert all("CHANGE-ME" in value for value in documents["Secret"]["stringData"].values())


# --- the container ----------------------------------------------------------------------------------


def find_container_faults(text: str) -> Iterator[str]:
    """What a Containerfile of ours must not hold, or be without."""
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip() and not line.startswith("#")]
    stages = [line.split() for line in lines if line.startswith("FROM ")]
    if len(stages) < 2 or any("AS" not in stage for stage in stages):
        yield "not in named stages"
    names = {stage[-1] for stage in stages}
    for stage in stages:
        base = stage[1]
        if base not in names and (":" not in base.rpartition("/")[2] or base.endswith(":latest")):
            yield f"{base} is of no version"
    if any(re.match(r"ADD\s", line) for line in lines):
        yield "ADD"
    if re.search(r"curl|wget|https?://(?!127\.0\.0\.1)", "\n".join(lines)):
        yield "downloads something"
    if re.search(r"pip install(?!.*(--require-hashes|--no-deps))", "\n".join(lines)):
        yield "installs what no hash covers"
    last = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :] if stages else []
    users = [line.split()[1] for line in last if line.startswith("USER ")]
    if not users or users[-1].partition(":")[0] in ("root", "0"):
        yield "runs as root"
    for instruction in ("HEALTHCHECK ", "STOPSIGNAL ", "ENTRYPOINT ["):
        if not any(line.startswith(instruction) for line in last):
            yield f"no {instruction.strip(' [')}"
    if any(re.match(r"(ENV|ARG)\s.*(KEY|SECRET|PASSWORD|TOKEN)", line) for line in lines):
        yield "holds a secret"


def test_the_containerfile_keeps_the_rules(deploy: Path, root: Path) -> None:
    text = (deploy / "Containerfile").read_text("utf-8")
    assert list(find_container_faults(text)) == []
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.MULTILINE)
    sources = [name for each in copied for name in each.split()]
    assert len(sources) >= 5
    assert [name for name in sources if not (root / name).exists()] == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("USER 10001:10001", "USER root", "runs as root"),
        ("USER 10001:10001\n", "", "runs as root"),
        ("FROM python:3.11-slim-bookworm AS server", "FROM python:latest AS server", "is of no version"),
        ("FROM python:3.11-slim-bookworm AS server", "FROM python AS server", "is of no version"),
        ("COPY src/ src/", "ADD src/ src/", "ADD"),
        ("COPY src/ src/", "RUN curl -O x", "downloads"),
        ("--require-hashes ", "", "no hash"),
        ("HEALTHCHECK ", "LABEL a=", "no HEALTHCHECK"),
        ("STOPSIGNAL SIGTERM", "ENV CURBSIDE_KEY=1", "holds a secret"),
        (" AS build", "", "named stages"),
    ],
)
def test_a_seeded_fault_of_the_containerfile_is_found(deploy: Path, old: str, new: str, fault: str) -> None:
    text = (deploy / "Containerfile").read_text("utf-8")
    assert old in text
    assert any(fault in each for each in find_container_faults(text.replace(old, new)))
