from __future__ import annotations

from django.urls import path

from bench.drf_baseline.views import Use

urlpatterns = [path("api/v1/keys/<str:alias>/<str:operation>", Use.as_view())]
