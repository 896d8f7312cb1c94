import uuid

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="WrappedMaterial",
            fields=[
                ("label", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("store_id", models.UUIDField(db_index=True)),
                ("spec", models.CharField(max_length=40)),
                ("wrapped", models.BinaryField()),
                ("check_value", models.CharField(max_length=16)),
                ("public_key", models.BinaryField(null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "verbose_name": "wrapped material",
                "verbose_name_plural": "wrapped material",
            },
        ),
    ]
