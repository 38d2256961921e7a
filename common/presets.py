"""Named starting points; a YAML file and command-line options change them further."""

from common.config import Config

PRESETS: dict[str, Config] = {
    "default": Config(),
}
