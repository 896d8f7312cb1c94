"""Every address of the browser console."""

from __future__ import annotations

from django.urls import path, register_converter

from kms_console.web import (
    applications,
    approvals,
    audit,
    audit_entry,
    audit_exports,
    audit_filters,
    ceremonies,
    classifications,
    discovery,
    drift,
    exports,
    grants,
    jobs,
    key_creation,
    key_stores,
    keys,
    material,
    overview,
    people,
    public_keys,
    root_key,
    sessions,
    set_up,
    trust,
)

app_name = "web"


class SmallNumber:
    """A whole number that every database column can hold."""

    regex = "[0-9]{1,9}"

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


class EntryNumber(SmallNumber):
    """The number of an entry of the log."""

    regex = "[0-9]{1,15}"


register_converter(SmallNumber, "small")
register_converter(EntryNumber, "entry")

# Names never begin with a dash, so no key or classification can hide behind "/-/".
urlpatterns = [
    path("sign-in", sessions.sign_in, name="sign-in"),
    path("sign-out", sessions.sign_out, name="sign-out"),
    path("set-up", set_up.set_up, name="set-up"),
    path("", overview.overview, name="overview"),
    path("keys", keys.key_list, name="keys"),
    path("keys/-/new", key_creation.key_create, name="key-create"),
    path("keys/<str:reference>", keys.key_page, name="key"),
    path("keys/<str:reference>/edit", keys.key_edit, name="key-edit"),
    path("keys/<str:reference>/import", material.key_import, name="key-import"),
    path(
        "keys/<str:reference>/import/parameters",
        material.import_parameters,
        name="import-parameters",
    ),
    path("keys/<str:reference>/import/material", material.import_material, name="import-material"),
    path("keys/<str:reference>/import/ceremony", ceremonies.ceremony_open, name="ceremony-open"),
    path("keys/<str:reference>/public-key", public_keys.public_key, name="public-key"),
    path(
        "keys/<str:reference>/certificate",
        public_keys.certificate_request,
        name="certificate-request",
    ),
    path("keys/<str:reference>/compare", drift.key_compare, name="key-compare"),
    path("keys/<str:reference>/do/<slug:verb>", keys.key_verb, name="key-verb"),
    path(
        "keys/<str:reference>/versions/<small:number>/do/<slug:verb>",
        keys.version_verb,
        name="version-verb",
    ),
    path(
        "keys/<str:reference>/versions/<small:number>/export",
        exports.version_export,
        name="version-export",
    ),
    path("ceremonies/<str:reference>", ceremonies.ceremony_page, name="ceremony"),
    path("ceremonies/<str:reference>/enter", ceremonies.ceremony_enter, name="ceremony-enter"),
    path(
        "ceremonies/<str:reference>/confirm", ceremonies.ceremony_confirm, name="ceremony-confirm"
    ),
    path("ceremonies/<str:reference>/import", ceremonies.ceremony_import, name="ceremony-import"),
    path("ceremonies/<str:reference>/cancel", ceremonies.ceremony_cancel, name="ceremony-cancel"),
    path(
        "ceremonies/<str:reference>/minutes",
        ceremonies.ceremony_minutes,
        name="ceremony-minutes",
    ),
    path(
        "ceremonies/<str:reference>/minutes.txt",
        ceremonies.ceremony_minutes_text,
        name="ceremony-minutes-text",
    ),
    path("approvals", approvals.approval_list, name="approvals"),
    path("approvals/<str:reference>", approvals.approval_page, name="approval"),
    path("approvals/<str:reference>/vote", approvals.vote, name="vote"),
    path("approvals/<str:reference>/withdraw", approvals.withdraw, name="withdraw"),
    path("jobs", jobs.job_list, name="jobs"),
    path("jobs/<str:reference>", jobs.job_page, name="job"),
    path("audit", audit.audit_list, name="audit"),
    path("audit/export", audit_exports.export_choose, name="audit-export"),
    path("audit/exports", audit_exports.export_list, name="audit-exports"),
    path("audit/exports/<str:reference>", audit_exports.export_page, name="audit-export-page"),
    path(
        "audit/exports/<str:reference>/content",
        audit_exports.export_content,
        name="audit-export-content",
    ),
    path("audit/filters", audit_filters.filter_list, name="audit-filters"),
    path("audit/filters/new", audit_filters.filter_save, name="audit-filter-save"),
    path(
        "audit/filters/<str:reference>/delete",
        audit_filters.filter_delete,
        name="audit-filter-delete",
    ),
    path("audit/verify", audit.audit_verify, name="audit-verify"),
    path("audit/<entry:index>", audit_entry.entry_page, name="audit-entry"),
    path("proofs", trust.trust_page, name="proofs"),
    path("proofs/keys.txt", trust.verifier_keys, name="verifier-keys"),
    path("proofs/holds/new", trust.hold_place, name="hold-place"),
    path("proofs/holds/<str:reference>/release", trust.hold_release, name="hold-release"),
    path("classifications", classifications.classification_list, name="classifications"),
    path(
        "classifications/-/new", classifications.classification_create, name="classification-create"
    ),
    path(
        "classifications/<str:reference>",
        classifications.classification_page,
        name="classification",
    ),
    path(
        "classifications/<str:reference>/edit",
        classifications.classification_edit,
        name="classification-edit",
    ),
    path(
        "classifications/<str:reference>/pause",
        classifications.rotation_pause,
        name="rotation-pause",
    ),
    path(
        "classifications/<str:reference>/resume",
        classifications.rotation_resume,
        name="rotation-resume",
    ),
    path("applications", applications.application_list, name="applications"),
    path("applications/-/new", applications.application_create, name="application-create"),
    path("applications/<str:reference>", applications.application_page, name="application"),
    path(
        "applications/<str:reference>/close",
        applications.application_close,
        name="application-close",
    ),
    path(
        "applications/<str:reference>/limits",
        applications.limits_set,
        name="limits-set",
    ),
    path(
        "applications/<str:reference>/credentials/new",
        applications.credential_issue,
        name="credential-issue",
    ),
    path(
        "applications/<str:reference>/credentials/<str:credential>/revoke",
        applications.credential_revoke,
        name="credential-revoke",
    ),
    path("grants/-/new", grants.grant_create, name="grant-create"),
    path("grants/<str:reference>/revoke", grants.grant_revoke, name="grant-revoke"),
    path("people", people.people_list, name="people"),
    path("people/-/new", people.person_create, name="person-create"),
    path("people/-/officer", people.officer_appoint, name="officer-appoint"),
    path("people/<str:reference>/dismiss", people.officer_dismiss, name="officer-dismiss"),
    path("people/<str:reference>/close", people.person_close, name="person-close"),
    path("people/<str:reference>/erase", people.person_erase, name="person-erase"),
    path("account", people.account, name="account"),
    path("key-stores", key_stores.key_store_list, name="key-stores"),
    path("key-stores/-/new", key_stores.key_store_create, name="key-store-create"),
    path("key-stores/-/root-key/hold", root_key.root_key_hold, name="root-key-hold"),
    path("key-stores/-/root-key/rotate", root_key.root_key_rotate, name="root-key-rotate"),
    path("key-stores/<str:reference>", key_stores.key_store_page, name="key-store"),
    path("key-stores/<str:reference>/edit", key_stores.key_store_edit, name="key-store-edit"),
    path("key-stores/<str:reference>/check", key_stores.key_store_check, name="key-store-check"),
    path(
        "key-stores/<str:reference>/discover",
        discovery.key_store_discover,
        name="key-store-discover",
    ),
    path("key-stores/<str:reference>/off", key_stores.key_store_off, name="key-store-off"),
    path("key-stores/<str:reference>/on", key_stores.key_store_on, name="key-store-on"),
    path("listings/<str:reference>", discovery.listing_page, name="listing"),
    path("listings/<str:reference>/adopt", discovery.listing_adopt, name="listing-adopt"),
    path("drift", drift.drift_list, name="drift"),
    path("drift/<str:reference>/do/<slug:verb>", drift.drift_verb, name="drift-verb"),
]
