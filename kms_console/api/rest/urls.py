"""Every address of the native API, on one screen."""

from __future__ import annotations

from django.urls import path, re_path

from kms_console.api.rest.views import (
    access,
    audit,
    ceremonies,
    docs,
    drift,
    grants,
    imports,
    keys,
    listings,
    policy,
    requests,
    stores,
    uses,
    versions,
)

app_name = "rest"

_key, _version = "keys/<key>", "keys/<key>/versions/<number>"
_ceremony, _store = "ceremonies/<ceremony>", "key-stores/<key_store>"
_class, _application, _person = (
    "classifications/<classification>",
    "applications/<application>",
    "people/<person>",
)

urlpatterns = [
    path("docs", docs.Docs.as_view(), name="docs"),
    path("openapi.json", docs.Document.as_view(), name="document"),
    path("problems/<code>", docs.ProblemType.as_view(), name="problem"),
    path("random", uses.RANDOM_VIEW, name="random"),
    path("random/batch", uses.RANDOM_BATCH_VIEW, name="random/batch"),
    *(path(f"{_key}/{use}", view, name=use) for use, view in uses.USE_VIEWS.items()),
    path(f"{_key}/jwks.json", uses.KeySet.as_view(), name="jwks"),
    path("keys", keys.Keys.as_view(), name="keys"),
    path(_key, keys.OneKey.as_view(), name="key"),
    *(path(f"{_key}/{verb}", view, name=verb) for verb, view in keys.VERBS.items()),
    *(path(f"{_key}/{verb}", view, name=verb) for verb, view in imports.VERBS.items()),
    path(f"{_key}/check-drift", drift.CheckDrift.as_view(), name="check-drift"),
    path(f"{_key}/store-view", drift.KeyAtStore.as_view(), name="store-view"),
    path(f"{_key}/ceremonies", ceremonies.KeyCeremonies.as_view(), name="ceremonies"),
    path(f"{_key}/versions", versions.Versions.as_view(), name="versions"),
    path(_version, versions.OneVersion.as_view(), name="version"),
    path(f"{_version}/transition", versions.TransitionVersion.as_view(), name="transition"),
    path(
        f"{_version}/cancel-destruction",
        versions.CancelVersionDestruction.as_view(),
        name="cancel-version-destruction",
    ),
    path(
        f"{_version}/delete-material",
        imports.DeleteMaterial.as_view(),
        name="delete-material",
    ),
    path(_ceremony, ceremonies.OneCeremony.as_view(), name="ceremony"),
    *(path(f"{_ceremony}/{step}", view, name=step) for step, view in ceremonies.STEPS.items()),
    path("classifications", policy.Classifications.as_view(), name="classifications"),
    path(_class, policy.OneClassification.as_view(), name="classification"),
    path(f"{_class}/pause-rotation", policy.PauseRotation.as_view(), name="pause-rotation"),
    path(f"{_class}/resume-rotation", policy.ResumeRotation.as_view(), name="resume-rotation"),
    path("key-stores", stores.KeyStores.as_view(), name="key_stores"),
    path(_store, stores.OneKeyStore.as_view(), name="key_store"),
    path(f"{_store}/check", stores.CheckKeyStore.as_view(), name="check"),
    path(f"{_store}/discover", listings.Discover.as_view(), name="discover"),
    path(f"{_store}/listings", listings.Listings.as_view(), name="listings"),
    path(f"{_store}/adopt", listings.Adopt.as_view(), name="adopt"),
    path("listings/<listing>", listings.OneListing.as_view(), name="listing"),
    path("listings/<listing>/keys", listings.Found.as_view(), name="found-keys"),
    path("drift", drift.Differences.as_view(), name="drifts"),
    path("drift/<drift>", drift.OneDifference.as_view(), name="drift"),
    *(path(f"drift/<drift>/{way}", view, name=way) for way, view in drift.WAYS.items()),
    path("applications", access.Applications.as_view(), name="applications"),
    path(_application, access.OneApplication.as_view(), name="application"),
    path(f"{_application}/deactivate", access.DeactivateApplication.as_view(), name="deactivate"),
    path(f"{_application}/credentials", access.Credentials.as_view(), name="credentials"),
    path(
        "credentials/<credential>/revoke",
        access.RevokeCredential.as_view(),
        name="revoke-credential",
    ),
    path("people", access.People.as_view(), name="people"),
    path("people/appoint-officer", access.AppointOfficerView.as_view(), name="appoint-officer"),
    path(_person, access.OnePerson.as_view(), name="person"),
    path(f"{_person}/dismiss", access.Dismiss.as_view(), name="dismiss"),
    path(f"{_person}/deactivate", access.DeactivatePerson.as_view(), name="deactivate-person"),
    path("grants", grants.Grants.as_view(), name="grants"),
    path("grants/<grant>", grants.OneGrant.as_view(), name="grant"),
    path("grants/<grant>/revoke", grants.RevokeGrant.as_view(), name="revoke-grant"),
    path("approvals", requests.Approvals.as_view(), name="approvals"),
    path("approvals/<approval>", requests.OneApproval.as_view(), name="approval"),
    path("approvals/<approval>/vote", requests.VoteView.as_view(), name="vote"),
    path("approvals/<approval>/withdraw", requests.Withdraw.as_view(), name="withdraw"),
    path("jobs", requests.Jobs.as_view(), name="jobs"),
    path("jobs/<job>", requests.OneJob.as_view(), name="job"),
    path("audit", audit.Entries.as_view(), name="audit"),
    path("audit/export", audit.Export.as_view(), name="export"),
    path("audit/verify", audit.Verify.as_view(), name="verify"),
    path("audit/<index>", audit.OneEntry.as_view(), name="entry"),
    re_path(r"^[\s\S]*$", docs.NotHere.as_view(), name="not-here"),
]
