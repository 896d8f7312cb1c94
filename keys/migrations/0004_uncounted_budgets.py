from django.db import migrations


def budget_what_was_not_counted(apps, schema_editor):
    """Versions of AES-GCM keys from before there was a count: nobody knows, so they are to be rotated."""
    count = apps.get_model("keys", "MessageCount")
    versions = apps.get_model("keys", "KeyVersion").objects.filter(key__algorithm="AES_256_GCM")
    limit = 2**32 - 65_536
    for version in versions.exclude(handle="").iterator():
        count.objects.create(version=version, limit=limit, leased=limit * 3 // 4, low=True)


class Migration(migrations.Migration):
    dependencies = [("keys", "0003_algorithms_and_imports")]

    operations = [
        migrations.RunPython(budget_what_was_not_counted, migrations.RunPython.noop),
    ]
