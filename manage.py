#!/usr/bin/env python
"""Run a management command: `python manage.py help`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kms_console.settings")
    if sys.argv[1:2] == ["up"]:
        # Before the settings, which read the name of the data folder that `up` is only now told.
        from kms_console.supervisor.command import main as up

        sys.exit(up(sys.argv[2:]))
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
