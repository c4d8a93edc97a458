"""Table 3 of the paper, and what others submitted, as they stand beside our own results."""

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


# Read off the README of the data set (2022), its list of submitted results.
SUBMITTED = {
    "WRN-40-4": 0.967,
    "WRN-28-10": 0.963,
    "Dual path network": 0.957,
    "DenseNet-BC": 0.954,
    "MobileNet": 0.950,
    "ResNet18": 0.949,
    "Capsule network": 0.936,
    "VGG16": 0.935,
    "HOG and SVM": 0.926,
    "Human": 0.835,
}
# Listed by 30 August 2017, the day before the data was replaced; WRN-28-10 by its author's word.
ON_THE_FIRST_RELEASE = {
    "WRN-40-4",
    "WRN-28-10",
    "Dual path network",
    "DenseNet-BC",
    "MobileNet",
    "ResNet18",
}


def of_the_paper():
    return [row for row in published.all_results() if row.source_name == published.PAPER_NAME]


def test_all_rows_of_the_table_are_there():
    results = of_the_paper()
    assert len(results) == 126
    assert len({result.family for result in results}) == 13
    assert len({(result.family, result.settings) for result in results}) == 126


@pytest.mark.parametrize("result", of_the_paper(), ids=lambda result: result.family)
def test_each_row_of_the_table_is_complete(result):
    assert result.family and result.settings
    assert 0.1 < result.accuracy < 0.9  # a column of MNIST (0.95 and more) would not fit
    assert result.source_name and result.source_url.startswith("https://")
    assert (result.training_images, result.num_test_images) == (60_000, 10_000)


def test_submitted_results_say_on_which_release_they_were_measured():
    rows = published.OTHER_RESULTS
    assert {row.family: row.accuracy for row in rows} == SUBMITTED
    first = {row.family for row in rows if published.FIRST_RELEASE in row.caveat}
    assert first == ON_THE_FIRST_RELEASE
    assert all(row.source_url.startswith("https://github.com/zalandoresearch") for row in rows)
    human = rows[-1]
    assert (human.num_test_images, human.training_images) == (1_000, None)


def test_the_notes_explain_the_release_only_where_a_row_names_it():
    assert published.notes(["Xiao et al. 2017, Table 3"]) == []
    notes = published.notes(["Fashion-MNIST README (first release of the data)"] * 2)
    assert notes == [published.README_NOTE, published.FIRST_RELEASE_NOTE]
    assert "31 August 2017" in notes[1]


def test_best_of_each_family_and_their_order():
    rows = published.best_per_family()
    found = [(row.family, row.settings, row.accuracy) for row in rows if row in of_the_paper()]
    assert found == BEST
    accuracies = [row.accuracy for row in rows[2:]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert len(rows) == len(BEST) + len(SUBMITTED)


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
    assert len(published.all_results()) == 126 + 1
    families = [result.family for result in published.best_per_family()]
    assert families[:3] == ["SVC", "MLPClassifier", "WRN"]


def test_results_cannot_be_changed_by_a_caller():
    published.all_results().clear()
    assert len(published.all_results()) == 126 + len(SUBMITTED)
    with pytest.raises(dataclasses.FrozenInstanceError):
        published.all_results()[0].accuracy = 1.0
