"""Writes the newest machine images of a region into a cluster file: `python -m scripts.cluster_images cluster.yaml`.

An image has another id in each region, and a new one every few weeks. AWS publishes the newest ones as parameters;
a line `ImageId: …  # newest: PARAMETER` says which it is to have.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from common.errors import UserError, first_line

_LINE = re.compile(r"(?P<key>ImageId: *)(?P<image>\S+)(?P<comment> +# newest: (?P<parameter>\S+))")


def with_newest_images(text: str, newest: Callable[[str], str]) -> str:
    """The text of a cluster file with the newest images, all else as it was.

    Args:
        text: the file's.
        newest: gives a parameter's value, an image's id.
    """
    return _LINE.sub(lambda line: f"{line['key']}{newest(line['parameter'])}{line['comment']}", text)


def newest_image(region: str) -> Callable[[str], str]:
    """Asks AWS for the values of its public parameters.

    Args:
        region: such as us-west-2.

    Raises:
        UserError: when asked, where AWS gives no answer.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise UserError("boto3 is missing: make setup-cluster installs it") from None
    client = boto3.client("ssm", region_name=region)

    def ask(parameter: str) -> str:
        try:
            return str(client.get_parameter(Name=parameter)["Parameter"]["Value"])
        except (BotoCoreError, ClientError) as error:
            raise UserError(f"AWS does not say what {parameter} is in {region}: {first_line(error)}") from None

    return ask


def main(path: Path) -> None:
    """Rewrites the file and says what it has now.

    Raises:
        UserError: there is no such file, or AWS gives no answer; the file is then as it was.
    """
    try:
        text = path.read_text(encoding="utf-8")
        region = yaml.safe_load(text)["provider"]["region"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no cluster file of AWS: {first_line(error)}") from None
    changed = with_newest_images(text, newest_image(region))
    path.write_text(changed, encoding="utf-8")
    for line in _LINE.finditer(changed):
        print(f"{region}: {line['image']}, the newest of {line['parameter']}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except UserError as user_error:
        print(f"cluster_images: error: {user_error}", file=sys.stderr)
        sys.exit(2)
