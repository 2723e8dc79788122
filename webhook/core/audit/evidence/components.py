"""Write OSCAL 1.1 documents that depend on no log: the component definition, and each profile with its catalog.

A catalog contains identifiers and Weightlock's own words, no text of a standard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from webhook.core.audit.evidence.oscal import identifier, metadata, prop

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from webhook.core.audit.evidence.oscal import Json
    from webhook.core.audit.evidence.profiles import Control, Profile

# The date of the profiles: they have no other version.
MODIFIED = "2026-11-29T00:00:00.000000Z"
# The chart's values that a criterion of a control depends on.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "log": ("audit.enabled", "audit.existingClaim", "audit.existingSecret"),
    "releases": ("broker.enabled", "broker.config"),
    "grants": ("controller.enabled", "signing.existingSecret"),
    "integrity": ("guard.enabled", "controller.restoreWebhooks", "controller.restoreDefinitions"),
    "own-policies": ("policies",),
    "models": ("controller.enabled",),
}


class Serving(NamedTuple):
    """What serves the controls: policies by name with their ``controls``, values of the chart, tests by control."""

    policies: Sequence[tuple[str, Sequence[str]]]
    values: frozenset[str] = frozenset()
    tests: Mapping[str, Sequence[str]] = {}


def component_definition(serving: Serving, profiles: Mapping[str, Profile], version: str) -> Json:
    """Return the component definition: for each control, the policies, values and tests that serve it."""
    implementations = []
    for name, profile in profiles.items():
        requirements = [
            requirement
            for control in profile.controls
            if (requirement := _requirement(name, control, serving)) is not None
        ]
        if requirements:
            implementations.append(
                {
                    "uuid": identifier("implementation", name),
                    "source": f"profile-{name}.json",
                    "description": profile.title,
                    "implemented-requirements": requirements,
                }
            )
    return {
        "component-definition": {
            "uuid": identifier("component-definition", version),
            "metadata": metadata("Weightlock component definition", MODIFIED, version),
            "components": [
                {
                    "uuid": identifier("component"),
                    "type": "software",
                    "title": "Weightlock",
                    "description": "Kubernetes admission controller that restricts access to model weights.",
                    "control-implementations": implementations,
                }
            ],
        }
    }


def _requirement(profile: str, control: Control, serving: Serving) -> Json | None:
    """Return what serves a control, or None if Weightlock does not serve it."""
    policy_names = {
        each.removeprefix("policies:") for each in control.criteria if each.startswith("policies:")
    }
    references = {control.reference, *(f"NIST-800-53/{name}" for name in policy_names)}
    policies = [name for name, controls in serving.policies if references & set(controls)]
    values = [
        value for each in control.criteria for value in SETTINGS.get(each, ()) if value in serving.values
    ]
    tests = serving.tests.get(control.reference, ())
    if not policies and not control.criteria:
        return None
    props = [
        *(prop("policy", name) for name in sorted(policies)),
        *(prop("chart-value", name) for name in dict.fromkeys(values)),
        *(prop("test", name) for name in tests),
    ]
    requirement: Json = {
        "uuid": identifier("requirement", profile, control.id),
        "control-id": control.id,
        "description": control.words,
    }
    if props:
        requirement["props"] = props
    return requirement


def catalog(name: str, profile: Profile) -> Json:
    """Return the catalog of a profile: its control identifiers with Weightlock's words for them."""
    controls = [
        {
            "id": control.id,
            "title": control.reference,
            "parts": [{"id": f"{control.id}_smt", "name": "statement", "prose": control.words}],
        }
        for control in profile.controls
    ]
    return {
        "catalog": {
            "uuid": identifier("catalog", name),
            "metadata": metadata(f"Identifiers: {profile.title}", MODIFIED, name),
            "controls": controls,
            "back-matter": {
                "resources": [
                    {
                        "uuid": identifier("source", profile.href),
                        "title": "The standard",
                        "rlinks": [{"href": profile.href}],
                    }
                ]
            },
        }
    }


def profile_document(name: str, profile: Profile) -> Json:
    """Return the profile: it selects every control of its catalog, `catalog-NAME.json` beside it."""
    ids = [control.id for control in profile.controls]
    return {
        "profile": {
            "uuid": identifier("profile", name),
            "metadata": metadata(profile.title, MODIFIED, name),
            "imports": [{"href": f"catalog-{name}.json", "include-controls": [{"with-ids": ids}]}],
            "merge": {"as-is": True},
        }
    }


def documents(serving: Serving, profiles: Mapping[str, Profile], version: str) -> Iterable[tuple[str, Json]]:
    """Yield the file name and content of every document."""
    yield "component-definition.json", component_definition(serving, profiles, version)
    for name, profile in profiles.items():
        yield f"catalog-{name}.json", catalog(name, profile)
        yield f"profile-{name}.json", profile_document(name, profile)
