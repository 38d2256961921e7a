"""`cluster.yaml` against an AWS that moto mimics: what `ray up` would ask for, and that mistakes are refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_USER_NODE_TYPE,
)

from common.errors import UserError
from scripts import cluster_images
from tests.cluster_files import AWS_FILE, Config, bootstrap, mocked_aws, with_images

Instance = dict[str, Any]
TEXT = AWS_FILE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The file's text with the newest images in it, while the mock is there; it takes seconds to make one."""
    with pytest.MonkeyPatch.context() as monkeypatch, mocked_aws(monkeypatch, tmp_path_factory.mktemp("home")):
        yield with_images(TEXT)


@pytest.fixture
def config(filled: str) -> Config:
    parsed: Config = yaml.safe_load(filled)
    return parsed


def ec2(config: Config) -> Any:
    return boto3.client("ec2", region_name=config["provider"]["region"])


def launch(config: Config, node_type: str) -> tuple[AWSNodeProvider, Instance]:
    """Starts a machine as Ray does, and says what AWS knows of it."""
    is_head = node_type == config["head_node_type"]
    node_config = config["available_node_types"][node_type]["node_config"]
    tags = {
        TAG_RAY_NODE_KIND: NODE_KIND_HEAD if is_head else NODE_KIND_WORKER,
        TAG_RAY_USER_NODE_TYPE: node_type,
        TAG_RAY_LAUNCH_CONFIG: "none",
        TAG_RAY_NODE_NAME: f"ray-{config['cluster_name']}-{node_type}",
    }
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    (created,) = provider.create_node((config["head_node"] if is_head else {}) | node_config, tags, 1)
    assert created in provider.non_terminated_nodes({TAG_RAY_USER_NODE_TYPE: node_type})
    return provider, describe(config, created)


def describe(config: Config, instance_id: str) -> Instance:
    (group,) = ec2(config).describe_instances(InstanceIds=[instance_id])["Reservations"]
    (instance,) = group["Instances"]
    found: Instance = instance
    return found


@pytest.mark.parametrize("node_type", ["head", "actors"])
def test_each_kind_of_machine_starts_and_ends(config: Config, node_type: str) -> None:
    provider, instance = launch(bootstrap(config), node_type)
    wanted = config["available_node_types"][node_type]["node_config"]
    assert instance["InstanceType"] == wanted["InstanceType"]
    assert instance["ImageId"] == wanted["ImageId"]
    assert instance["PublicIpAddress"]  # without one nobody could reach it
    disks = [disk["Ebs"]["VolumeId"] for disk in instance["BlockDeviceMappings"]]
    provider.terminate_nodes([instance["InstanceId"]])
    # A stopped machine would go on costing, and so would a disk that nobody uses.
    assert describe(config, instance["InstanceId"])["State"]["Name"] == "terminated"
    left = {volume["VolumeId"] for volume in ec2(config).describe_volumes()["Volumes"]}
    assert disks
    assert not left & set(disks)


def test_actors_are_on_spot_machines_and_the_learner_is_not(config: Config) -> None:
    resolved = bootstrap(config)
    market = config["available_node_types"]["actors"]["node_config"]["InstanceMarketOptions"]
    assert market["MarketType"] == "spot"  # moto takes every market for that one
    assert launch(resolved, "actors")[1].get("InstanceLifecycle") == "spot"
    assert launch(resolved, "head")[1].get("InstanceLifecycle") is None


def test_the_head_offers_the_learners_core_and_its_gpu_and_the_others_all_cores(config: Config) -> None:
    kinds = bootstrap(config)["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 1, "GPU": 1, "accelerator_type:L4": 1}
    assert kinds["actors"]["resources"]["CPU"] == 16
    assert "GPU" not in kinds["actors"]["resources"]
    # 300 MiB an actor are what a run counts with (driver/plan.py).
    assert kinds["actors"]["resources"]["memory"] > 16 * 300 * 2**20


def test_the_cluster_grows_from_none_to_the_limit_and_shrinks_by_itself(config: Config) -> None:
    resolved = bootstrap(config)
    workers = resolved["available_node_types"]["actors"]
    assert (workers["min_workers"], workers["max_workers"]) == (0, config["max_workers"])
    assert resolved["available_node_types"]["head"]["max_workers"] == 0
    assert 0 < resolved["idle_timeout_minutes"] <= 10


def test_the_security_group_lets_in_ssh_alone(config: Config) -> None:
    kinds = bootstrap(config)["available_node_types"]
    (group,) = {group for kind in kinds.values() for group in kind["node_config"]["SecurityGroupIds"]}
    (described,) = ec2(config).describe_security_groups(GroupIds=[group])["SecurityGroups"]
    from_strangers = [rule for rule in described["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in from_strangers] == [("tcp", 22, 22)]
    from_groups = [pair["GroupId"] for rule in described["IpPermissions"] for pair in rule["UserIdGroupPairs"]]
    assert from_groups == [group]


def test_the_head_alone_may_start_machines(config: Config) -> None:
    resolved = bootstrap(config)
    iam = boto3.client("iam")
    name = resolved["head_node"]["IamInstanceProfile"]["Arn"].split("/")[-1]
    (role,) = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    policies = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
    assert "AmazonEC2FullAccess" in [policy["PolicyName"] for policy in policies]
    assert all("IamInstanceProfile" not in kind["node_config"] for kind in resolved["available_node_types"].values())


def test_every_zone_of_the_file_offers_both_machines(config: Config) -> None:
    zones = {zone.strip() for zone in config["provider"]["availability_zone"].split(",")}
    for kind in config["available_node_types"].values():
        filters = [{"Name": "instance-type", "Values": [kind["node_config"]["InstanceType"]]}]
        offers = ec2(config).describe_instance_type_offerings(LocationType="availability-zone", Filters=filters)
        assert zones <= {offer["Location"] for offer in offers["InstanceTypeOfferings"]}


def test_the_workers_image_is_amazon_linux_2023_and_fits_machine_and_disk(config: Config) -> None:
    wanted = config["available_node_types"]["actors"]["node_config"]
    (image,) = ec2(config).describe_images(ImageIds=[wanted["ImageId"]])["Images"]
    assert image["Name"].startswith("al2023-ami-2023.")
    (machine,) = ec2(config).describe_instance_types(InstanceTypes=[wanted["InstanceType"]])["InstanceTypes"]
    assert image["Architecture"] in machine["ProcessorInfo"]["SupportedArchitectures"]
    # Otherwise the disk would be a second one beside a root disk of the image's size.
    assert [disk["DeviceName"] for disk in wanted["BlockDeviceMappings"]] == [image["RootDeviceName"]]


def set_in(config: Config, path: str, value: object) -> None:
    """Puts a value at a place such as `provider.region`; None takes away what is there."""
    *places, last = path.split(".")
    for place in places:
        config = config[place]
    if value is None:
        del config[last]
    else:
        config[last] = value


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("max_wrokers", 4, "max_wrokers"),
        ("available_node_types.actors.min_wokers", 0, "min_wokers"),
        ("available_node_types.actors.node_config", None, "node_config"),
        ("head_node_type", "haed", "`head_node_type` must be one of"),
        ("provider.type", None, "type"),
        ("auth.ssh_usr", "ec2-user", "ssh_usr"),
        ("max_workers", "four", "four"),
        ("head_setup_commands", "make setup", "list"),
    ],
)
def test_ray_refuses_a_file_that_its_schema_does_not_know(
    config: Config, path: str, value: object, complaint: str
) -> None:
    set_in(config, path, value)
    with pytest.raises(Exception, match=complaint):
        bootstrap(config)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("provider.availability_zone", "us-east-1a", "us-east-1a"),
        ("provider.region", "us-west-9", "us-west-9"),
        ("auth.ssh_private_key", "~/.ssh/mine.pem", "`KeyName` missing from the `node_config`"),
    ],
)
def test_aws_refuses_a_file_before_a_machine_starts(
    config: Config, path: str, value: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_in(config, path, value)
    with pytest.raises(Exception) as refused:  # noqa: PT011  # Ray prints a page and raises an exception without text
        bootstrap(config)
    said = capsys.readouterr()
    assert complaint in f"{refused.value}{said.out}{said.err}"


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("InstanceTyp", "c7a.4xlarge", "InstanceTyp"),
        ("InstanceMarketOptions", {"MarktType": "spot"}, "MarktType"),
        ("ImageId", "ami-not-chosen", "ami-not-chosen"),
        ("ImageId", "ami-00000000000000000", "does not exist"),
        ("KeyName", "unknown", "unknown"),
    ],
)
def test_aws_refuses_a_machine_with_a_mistake(config: Config, key: str, value: object, complaint: str) -> None:
    resolved = bootstrap(config)
    resolved["available_node_types"]["actors"]["node_config"][key] = value
    with pytest.raises(Exception, match=complaint):
        launch(resolved, "actors")


def test_an_instance_type_that_aws_does_not_have_is_noticed(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    set_in(config, "available_node_types.actors.node_config.InstanceType", "c7a.5xlarge")
    with pytest.raises(Exception, match="resources"):
        bootstrap(config)
    assert "c7a.5xlarge is not available in AWS region: us-west-2" in caplog.text


def test_new_images_change_nothing_else_in_the_file(filled: str) -> None:
    images = [kind["node_config"]["ImageId"] for kind in yaml.safe_load(filled)["available_node_types"].values()]
    assert len(set(images)) == 2
    for image in images:
        filled = filled.replace(image, "ami-not-chosen")
    assert filled == TEXT


def test_images_are_written_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(TEXT, encoding="utf-8")
    given: Callable[[str], Callable[[str], str]] = lambda region: lambda parameter: f"ami-{region}"  # noqa: E731
    monkeypatch.setattr(cluster_images, "newest_image", given)
    for _ in range(2):  # again, when the images are old
        cluster_images.main(path)
        assert path.read_text(encoding="utf-8") == TEXT.replace("ami-not-chosen", "ami-us-west-2")
        assert capsys.readouterr().out.count("us-west-2: ami-us-west-2, the newest of /aws/service/") == 2


@pytest.mark.usefixtures("filled")
def test_without_an_answer_the_file_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(TEXT, encoding="utf-8")
    with pytest.raises(UserError, match=r"AWS does not say what /aws/service/deeplearning/.* is in us-west-2: "):
        cluster_images.main(path)  # moto has no Deep Learning images
    assert path.read_text(encoding="utf-8") == TEXT
    for broken in ("provider: {type: local}\n", "[", ""):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(UserError, match="is no cluster file of AWS"):
            cluster_images.main(path)
    with pytest.raises(UserError, match="no-such-file"):
        cluster_images.main(tmp_path / "no-such-file")
