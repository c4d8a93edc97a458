"""Table 3 of the paper as it stands beside our own results."""

import dataclasses

import pytest

from transfer.evaluation import published

# Read off arXiv:1708.07747, Table 3: the best Fashion-MNIST accuracy of each family.
BEST = [
    ("SVC", "C=10 kernel=rbf", 0.897),
    ("MLPClassifier", "activation=relu hidden_layer_sizes=[100]", 0.871),
    ("GradientBoostingClassifier", "n_estimators=100 loss=deviance max_depth=10", 0.880),
    ("RandomForestClassifier", "n_estimators=100 criterion=entropy max_depth=100", 0.873),
    ("KNeighborsClassifier", "weights=distance n_neighbors=5 p=1", 0.854),
    ("LogisticRegression", "C=1 multi_class=ovr penalty=l1", 0.842),
    ("LinearSVC", "loss=hinge C=1 multi_class=ovr penalty=l2", 0.836),
    ("SGDClassifier", "loss=hinge penalty=l2", 0.819),
    ("DecisionTreeClassifier", "criterion=entropy max_depth=10 splitter=best", 0.798),
    ("Perceptron", "penalty=l1", 0.782),
    ("PassiveAggressiveClassifier", "C=1", 0.776),
    ("ExtraTreeClassifier", "criterion=gini max_depth=10 splitter=best", 0.775),
    ("GaussianNB", "priors=[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]", 0.511),
]


def test_all_rows_of_the_table_are_there():
    results = published.all_results()
    assert len(results) == 126
    assert len({result.family for result in results}) == 13
    assert len({(result.family, result.settings) for result in results}) == 126


@pytest.mark.parametrize("result", published.all_results(), ids=lambda result: result.family)
def test_each_row_is_complete(result):
    assert result.family and result.settings
    assert 0.1 < result.accuracy < 0.9  # a column of MNIST (0.95 and more) would not fit
    assert result.source_name and result.source_url.startswith("https://")
    assert (result.training_images, result.num_test_images) == (60_000, 10_000)


def test_best_of_each_family_and_their_order():
    found = [(row.family, row.settings, row.accuracy) for row in published.best_per_family()]
    assert found == BEST


def test_a_result_of_another_source_is_one_more_row(monkeypatch):
    row = published.PublishedResult(
        family="WRN",
        settings="",
        accuracy=0.96,
        source_name="S",
        source_url="https://s",
        caveat="c",
    )
    monkeypatch.setattr(published, "OTHER_RESULTS", (row,))
    assert len(published.all_results()) == 127
    families = [result.family for result in published.best_per_family()]
    assert families[:3] == ["SVC", "MLPClassifier", "WRN"]


def test_results_cannot_be_changed_by_a_caller():
    published.all_results().clear()
    assert len(published.all_results()) == 126
    with pytest.raises(dataclasses.FrozenInstanceError):
        published.all_results()[0].accuracy = 1.0
