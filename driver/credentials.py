"""URIs hold no credentials: they are kept with the run, in its settings and its command."""

import re
from typing import Final
from urllib.parse import parse_qsl, unquote

from common.errors import UserError

# Where the name before the @ is a login, a container or a bucket, and no secret by itself.
_NAMES: Final = frozenset(
    {"sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs", "abfs", "abfss", "az", "gs", "gcs", "oci"},
)
_SECRET: Final = re.compile(r"pass|pwd|secret|token|key|sig|cred", re.IGNORECASE)


def refuse_credentials(option: str, uri: str) -> None:
    """UserError, which does not show them, where any link of a URI that is chained by :: holds some.

    Args:
        option: that the URI was given to, for the message.
        uri: the user's.
    """
    if any(_holds_some(link) for link in uri.split("::")):
        raise UserError(
            f"{option}: the URI holds a password, a key or a token, which would be kept with the run; put it where the "
            "storage's library looks instead: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "GOOGLE_APPLICATION_CREDENTIALS, a file such as ~/.aws/credentials, an SSH key"
        )


def _holds_some(link: str) -> bool:
    scheme, _, rest = link.partition("://")
    user, at, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    if at and (":" in unquote(user) or scheme.lower() not in _NAMES):
        return True
    query = parse_qsl(rest.partition("?")[2], keep_blank_values=True)
    return any(_SECRET.search(name) for name, _ in query)
