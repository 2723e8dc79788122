"""A small cluster of storage, in a few words."""

import pytest

from webhook.api.modelweights import ModelWeights
from webhook.core.kube.objects import ObjectStore
from webhook.core.storage.catalog import Catalog
from webhook.core.storage.protected import with_volumes


def build_model(name, *volumes, sensitivity="frontier"):
    spec = {"sensitivity": sensitivity, "volumes": list(volumes)}
    document = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": name},
        "spec": spec,
    }
    return ModelWeights.model_validate(document)


def build_claim(name, namespace="research", labels=None, **spec):
    metadata = {"name": name, "namespace": namespace, **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def build_volume(name, labels=None, phase=None, **spec):
    metadata = {"name": name, **({"labels": labels} if labels else {})}
    status = {"status": {"phase": phase}} if phase else {}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec, **status}


@pytest.fixture(scope="session")
def model_of():
    """A ModelWeights from its name and the entries of its volumes."""
    return build_model


@pytest.fixture
def claim_of():
    """A PersistentVolumeClaim's document."""
    return build_claim


@pytest.fixture
def volume_of():
    """A PersistentVolume's document."""
    return build_volume


@pytest.fixture
def store_of():
    """An object store of documents."""

    def build(*documents, complete=True):
        store = ObjectStore(complete=complete)
        for document in documents:
            store.put(document)
        return store

    return build


@pytest.fixture
def catalog_of():
    """A catalog of models, with the volumes of a store if one is given."""

    def build(*models, store=None):
        catalog = Catalog(models)
        return with_volumes(catalog, store) if store is not None else catalog

    return build
