"""The cluster files in the root, and AWS as moto mimics it.

The mock needs neither an account nor a network. It has AWS's own lists of instance types, of the zones that offer
them and of Amazon Linux images; Deep Learning images it has none, so that one is registered here.
"""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import moto.settings
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.aws import utils as aws_utils
from ray.autoscaler._private.commands import _bootstrap_config

from common.errors import UserError
from scripts.cluster_images import newest_image, with_newest_images

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(ROOT.glob("cluster*.yaml"))
AWS_FILE = ROOT / "cluster.yaml"

Config = dict[str, Any]

# The mock takes seconds to list its 1,400 instance types, which are the same each time.
list_instance_types = functools.cache(node_provider.list_ec2_instances)


def read(path: Path) -> Config:
    """A cluster file as it stands."""
    config: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def commands(config: Config, *lists: str) -> list[str]:
    """The shell commands in some of a file's lists, in all of them if none is named."""
    names = lists or [name for name in config if name.endswith("_commands")]
    return [command for name in names for command in config.get(name, [])]


def bootstrap(config: Config) -> Config:
    """What `ray up` makes of a file before it starts a machine: Ray's schema, then the provider's checks.

    Raises:
        Exception: of many types, where Ray refuses the file.
    """
    resolved: Config = _bootstrap_config(config, no_config_cache=True)
    return resolved


@contextlib.contextmanager
def mocked_aws(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[None]:
    """An AWS that is as strict as moto can be, with keys in `home`."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    monkeypatch.setenv("HOME", str(home))
    for check in ("ENABLE_AMI_VALIDATION", "ENABLE_KEYPAIR_VALIDATION", "EC2_ENABLE_INSTANCE_TYPE_VALIDATION"):
        monkeypatch.setattr(moto.settings, check, True)
    # Ray waits half a minute for a real AWS to spread a new role.
    monkeypatch.setattr(aws_config, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(node_provider, "list_ec2_instances", lambda region, credentials: list_instance_types(region))
    for cache in (aws_utils.resource_cache, aws_utils.client_cache, aws_config._get_subnets_or_die):
        cache.cache_clear()
    with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        yield


def with_images(text: str) -> str:
    """The text of the AWS file as `make cluster-images` leaves it."""
    region = yaml.safe_load(text)["provider"]["region"]
    ask = newest_image(region)

    def newest(parameter: str) -> str:
        try:
            return ask(parameter)
        except UserError:
            assert "deeplearning" in parameter
            client = boto3.client("ec2", region_name=region)
            image = client.register_image(Name="DLAMI", Architecture="x86_64", RootDeviceName="/dev/xvda")
            return str(image["ImageId"])

    return with_newest_images(text, newest)
