"""The house's own services are principals like any other; their rows are always there."""

from django.db import migrations
from django.utils import timezone

from keys.services import OPERATOR_ID, SCHEDULER_ID


def add_services(apps, schema_editor):
    if schema_editor.connection.alias != "default":
        return
    principals = apps.get_model("keys", "Principal").objects
    now = timezone.now()
    for identity, name, description in [
        (SCHEDULER_ID, "scheduler", "Rotates what is due and carries out jobs"),
        (OPERATOR_ID, "operator", "Whoever runs commands on the host"),
    ]:
        principals.get_or_create(
            id=identity,
            defaults={
                "kind": "service",
                "name": name,
                "name_folded": name,
                "role": name,
                "description": description,
                "created_at": now,
            },
        )


class Migration(migrations.Migration):
    dependencies = [("keys", "0001_initial")]
    operations = [migrations.RunPython(add_services, migrations.RunPython.noop)]
