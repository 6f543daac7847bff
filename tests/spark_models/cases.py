"""The pairs of pipeline and real data that `fit.py` fits with Spark; read without pyspark by the tests.

A case is (data set, function from the namespace of pyspark.ml classes to stages, options). Options: `outputs` to ask for,
`rows` to train on.
"""

from __future__ import annotations

IRIS = ["sl", "sw", "pl", "pw"]
AIR = ["Ozone", "Solar", "Wind", "Temp"]
CARS = ["disp", "hp", "wt", "qsec"]
WINE = [f"w{i}" for i in range(13)]
DIAB = [f"d{i}" for i in range(10)]
CANCER = [f"c{i}" for i in range(30)]


# Spark's sparse vectors hide their zeros from VectorIndexer: unseen there, yet index 0
UNSEEN = [{"cyl": c, "hp": h, "carb": b} for c in (0.0, 5.0, 8.0) for h in (0.0, 110.0) for b in (0.0, 1.0, 5.0)]


# letters whose lower case, class or encoding is special, and the ways Java splits
ODD_LINES = [
    {"line": v}
    for v in (
        "", " ", "  the  OF the", "the\u00a0of A\u00a0B", "THE,the;The", "\u0130i \u0130\u0130 I\u0307 i\u0307", "5 \u212aM \u212a km", "STRASSE Stra\u00dfe STRA\u1e9eE",
        "\u039f\u03a3 \u03a3 the", "\tthe\x0bof\x0cthe\x1cthe\u2028the\x85the", "the\U0001d55e of \U00010400 the", "a,,b, ,the,", "x" * 5000 + " the",
        "\u01c5 \u1fbc \ua64a \u10a0 \u1c90 the", "data set data set of the data", "e\u0301 \u00c9 the-of_the 0the",
    )
]  # fmt: skip


def va(m, columns, out="features", **kw):
    return m.VectorAssembler(inputCols=columns, outputCol=out, **kw)


def on(columns, last, **kw):
    """Assemble the columns, then one more stage or several."""

    def build(m):
        more = last(m)
        return [va(m, columns, **kw), *(more if isinstance(more, list) else [more])]

    return build


def mixed(last, **kw):
    """CO2: two text columns and a number, as tree features whose categories are indices."""

    def build(m):
        return [
            m.StringIndexer(inputCols=["Plant", "Treatment"], outputCols=["pi", "ti"], handleInvalid="keep"),
            va(m, ["pi", "ti", "conc"], "raw"),
            m.VectorIndexer(inputCol="raw", outputCol="features", maxCategories=14, handleInvalid="keep"),
            last(m),
        ]

    return build


def credit(last, keep="keep"):
    """The usual pipeline: index, encode, assemble, predict, restore the label."""
    text = ["checking", "purpose", "savings", "employment"]

    def build(m):
        stages = [m.StringIndexer(inputCol=c, outputCol=c + "_i", handleInvalid=keep) for c in text]
        stages.append(m.OneHotEncoder(inputCols=[c + "_i" for c in text], outputCols=[c + "_o" for c in text]))
        stages.append(va(m, [c + "_o" for c in text] + ["duration", "amount", "age"]))
        label = m.StringIndexer(inputCol="risk", outputCol="label")
        more = last(m)
        return [*stages, label, *(more if isinstance(more, list) else [more])]

    return build


def restored(m):
    return m.IndexToString(inputCol="prediction", outputCol="answer", labels=["good", "bad"])


CASES: dict[str, tuple] = {}


def _add(data, **builders):
    for name, build in builders.items():
        kw = {}
        if isinstance(build, tuple):
            build, kw = build
        CASES[name.replace("_", "-")] = (data, build, kw)


# ---------------------------------------------------------------- features
_add(
    "air",
    assembler_keep=on(AIR, lambda m: [], handleInvalid="keep"),
    assembler_skip=on(AIR, lambda m: [], handleInvalid="skip"),
    imputer_mean=lambda m: [m.Imputer(inputCols=AIR, outputCols=[c + "_f" for c in AIR])],
    imputer_median=lambda m: [
        m.Imputer(inputCols=AIR, outputCols=[c + "_f" for c in AIR], strategy="median"),
        va(m, [c + "_f" for c in AIR]),
        m.StandardScaler(withMean=True, inputCol="features", outputCol="s"),
    ],
    imputer_sentinel=lambda m: [m.Imputer(inputCols=["Month", "Wind"], outputCols=["mf", "wf"], missingValue=5.0, strategy="mode")],
    bucketizer_keep=lambda m: [
        m.Bucketizer(splits=[-float("inf"), 20, 31.5, 97, float("inf")], inputCol="Ozone", outputCol="o", handleInvalid="keep")
    ],
    bucketizer_skip=(
        lambda m: [
            m.Bucketizer(
                splitsArray=[[-float("inf"), 31.5, float("inf")], [-float("inf"), 0, 190, float("inf")]],
                inputCols=["Ozone", "Solar"],
                outputCols=["o", "p"],
                handleInvalid="skip",
            )
        ],
        {"extra": [{"Ozone": 31.5, "Solar": -0.0}, {"Ozone": 1e300, "Solar": 0.0}, {"Ozone": float("inf"), "Solar": 190.0}]},
    ),
    bucketizer_bounded=lambda m: [m.Bucketizer(splits=[0, 9.7, 12, 30], inputCol="Wind", outputCol="o")],
    quantiles=lambda m: [
        m.QuantileDiscretizer(numBuckets=4, inputCols=["Wind", "Temp"], outputCols=["o", "p"], handleInvalid="keep"),
        va(m, ["o", "p"]),
    ],
    binarizer=lambda m: [m.Binarizer(threshold=31.5, inputCol="Ozone", outputCol="o")],
    binarizer_many=lambda m: [m.Binarizer(thresholds=[9.7, 79.0], inputCols=["Wind", "Temp"], outputCols=["o", "p"])],
    tree_missing=on(["Wind", "Month", "Day"], lambda m: m.DecisionTreeRegressor(labelCol="Temp", maxDepth=4), handleInvalid="keep"),
    forest_missing=on(["Wind", "Day"], lambda m: m.RandomForestClassifier(labelCol="Month", numTrees=5, seed=1), handleInvalid="keep"),
    linear_skip=on(AIR[:3], lambda m: m.LinearRegression(labelCol="Temp"), handleInvalid="skip"),
)
_add(
    "co2",
    indexer_error=lambda m: [m.StringIndexer(inputCol="Plant", outputCol="o")],
    indexer_keep=lambda m: [m.StringIndexer(inputCol="Plant", outputCol="o", handleInvalid="keep")],
    indexer_skip=lambda m: [m.StringIndexer(inputCol="Plant", outputCol="o", handleInvalid="skip", stringOrderType="alphabetDesc")],
    indexer_many=lambda m: [m.StringIndexer(inputCols=["Plant", "Type"], outputCols=["o", "p"], handleInvalid="keep"), va(m, ["o", "p"])],
    index_to_string=lambda m: [
        m.StringIndexer(inputCol="Type", outputCol="o"),
        m.IndexToString(inputCol="o", outputCol="back"),
    ],
    one_hot=lambda m: [m.StringIndexer(inputCol="Plant", outputCol="i"), m.OneHotEncoder(inputCol="i", outputCol="o")],
    one_hot_keep=lambda m: [
        m.StringIndexer(inputCol="Plant", outputCol="i", handleInvalid="keep"),
        m.OneHotEncoder(inputCol="i", outputCol="o", handleInvalid="keep"),
    ],
    one_hot_all=lambda m: [
        m.StringIndexer(inputCols=["Plant", "Type"], outputCols=["i", "j"], handleInvalid="skip"),
        m.OneHotEncoder(inputCols=["i", "j"], outputCols=["o", "p"], dropLast=False),
        va(m, ["o", "conc", "p"]),
    ],
    interaction_nominal=lambda m: [
        m.StringIndexer(inputCols=["Type", "Treatment"], outputCols=["i", "j"], handleInvalid="error"),
        va(m, ["conc", "i"], "v"),
        m.Interaction(inputCols=["conc", "i", "v", "j"], outputCol="o"),
    ],
    slicer_names=lambda m: [
        m.StringIndexer(inputCol="Type", outputCol="i"),
        m.OneHotEncoder(inputCol="i", outputCol="o", dropLast=False),
        va(m, ["conc", "o", "uptake"]),
        m.VectorSlicer(inputCol="features", outputCol="s", indices=[3], names=["o_Quebec", "conc"]),
    ],
    rformula=lambda m: [m.RFormula(formula="uptake ~ Type + conc"), m.LinearRegression()],
    rformula_interaction=lambda m: [m.RFormula(formula="uptake ~ Type:conc + Treatment + conc - 1")],
    rformula_skip=lambda m: [m.RFormula(formula="uptake ~ Treatment + conc", handleInvalid="skip"), m.LinearRegression()],
    rformula_label=lambda m: [m.RFormula(formula="Type ~ uptake + Treatment", handleInvalid="keep"), m.LogisticRegression()],
    tree_categorical=mixed(lambda m: m.DecisionTreeRegressor(labelCol="uptake", maxDepth=5)),
    forest_categorical=mixed(lambda m: m.RandomForestRegressor(labelCol="uptake", numTrees=8, maxDepth=4, seed=1)),
    boosted_categorical=mixed(lambda m: m.GBTRegressor(labelCol="uptake", maxIter=6, maxDepth=3, seed=1)),
    tree_indexed=on(
        ["plant_number", "conc"],
        lambda m: [
            m.VectorIndexer(inputCol="features", outputCol="o", maxCategories=12),
            m.DecisionTreeRegressor(featuresCol="o", labelCol="uptake", maxDepth=3),
        ],
    ),
    tree_class_categorical=mixed(lambda m: m.DecisionTreeClassifier(labelCol="high", maxDepth=5)),
    forest_class_categorical=mixed(lambda m: m.RandomForestClassifier(labelCol="high", numTrees=6, maxDepth=4, seed=1)),
)
_add(
    "cars",
    indexer_double=(
        lambda m: [m.StringIndexer(inputCol="cyl", outputCol="o", handleInvalid="keep")],
        {"extra": [{"cyl": 5.0}, {"cyl": float("nan")}]},
    ),
    indexer_zero=(
        lambda m: [m.StringIndexer(inputCol="am", outputCol="o", handleInvalid="keep")],
        {"extra": [{"am": 0.0}, {"am": -0.0}, {"am": 1.0}]},
    ),
    indexer_int=lambda m: [m.StringIndexer(inputCol="gear", outputCol="o", handleInvalid="skip"), va(m, ["o", "wt"])],
    vector_indexer_keep=(
        on(["cyl", "hp", "carb"], lambda m: m.VectorIndexer(inputCol="features", outputCol="o", maxCategories=6, handleInvalid="keep")),
        {"extra": UNSEEN},
    ),
    vector_indexer_skip=(
        on(["cyl", "hp", "carb"], lambda m: m.VectorIndexer(inputCol="features", outputCol="o", maxCategories=6, handleInvalid="skip")),
        {"extra": UNSEEN},
    ),
    standard=on(CARS, lambda m: m.StandardScaler(inputCol="features", outputCol="o")),
    standard_mean=on(CARS, lambda m: m.StandardScaler(inputCol="features", outputCol="o", withMean=True, withStd=False)),
    min_max=on([*CARS, "one"], lambda m: m.MinMaxScaler(inputCol="features", outputCol="o", min=-1.0, max=2.0)),
    max_abs=on(CARS, lambda m: m.MaxAbsScaler(inputCol="features", outputCol="o")),
    robust=on(CARS, lambda m: m.RobustScaler(inputCol="features", outputCol="o", withCentering=True, relativeError=1e-6)),
    normalizer_1=on(CARS, lambda m: m.Normalizer(inputCol="features", outputCol="o", p=1.0)),
    normalizer_2=on(CARS, lambda m: m.Normalizer(inputCol="features", outputCol="o")),
    normalizer_3=on(CARS, lambda m: m.Normalizer(inputCol="features", outputCol="o", p=3.0)),
    normalizer_max=on(CARS, lambda m: m.Normalizer(inputCol="features", outputCol="o", p=float("inf"))),
    polynomial=on(CARS, lambda m: m.PolynomialExpansion(inputCol="features", outputCol="o", degree=3)),
    product=on(CARS, lambda m: m.ElementwiseProduct(inputCol="features", outputCol="o", scalingVec=m.Vectors.dense([0.5, -2.0, 0.0, 3.0]))),
    dct=on(CARS, lambda m: m.DCT(inputCol="features", outputCol="o")),
    dct_inverse=on([*CARS, "mpg"], lambda m: m.DCT(inputCol="features", outputCol="o", inverse=True)),
    size_hint=on(CARS, lambda m: m.VectorSizeHint(inputCol="features", size=4)),
    size_hint_skip=on(
        CARS,
        lambda m: [m.VectorSizeHint(inputCol="features", size=4, handleInvalid="skip"), m.MaxAbsScaler(inputCol="features", outputCol="o")],
    ),
    binarizer_vector=on(CARS, lambda m: m.Binarizer(inputCol="features", outputCol="o", threshold=17.02)),
    isotonic=lambda m: [m.IsotonicRegression(featuresCol="wt", labelCol="mpg", isotonic=False)],
    isotonic_vector=on(CARS, lambda m: m.IsotonicRegression(labelCol="mpg", featureIndex=1, isotonic=False)),
)
_add("digits", idf=lambda m: [m.IDF(inputCol="pixels", outputCol="o")])
_add(
    "wine",
    pca=on(WINE, lambda m: [m.StandardScaler(inputCol="features", outputCol="s", withMean=True), m.PCA(k=4, inputCol="s", outputCol="o")]),
    select_univariate=on(
        WINE,
        lambda m: (
            m.UnivariateFeatureSelector(featuresCol="features", outputCol="o", labelCol="y")
            .setFeatureType("continuous")
            .setLabelType("categorical")
            .setSelectionThreshold(5)
        ),
    ),
    select_variance=on(WINE, lambda m: m.VarianceThresholdSelector(featuresCol="features", outputCol="o", varianceThreshold=1.0)),
    logistic_multi=on(WINE, lambda m: m.LogisticRegression(labelCol="y", regParam=0.01)),
    logistic_multi_sparse=on(WINE, lambda m: m.LogisticRegression(labelCol="y", regParam=0.1, elasticNetParam=1.0)),
    logistic_multi_thresholds=on(WINE, lambda m: m.LogisticRegression(labelCol="y", thresholds=[0.2, 0.0, 0.8], regParam=0.1)),
    perceptron=on(
        WINE,
        lambda m: [
            m.StandardScaler(inputCol="features", outputCol="s", withMean=True),
            m.MultilayerPerceptronClassifier(featuresCol="s", labelCol="y", layers=[13, 6, 4, 3], maxIter=30, seed=2),
        ],
    ),
    tree_class=on(WINE, lambda m: m.DecisionTreeClassifier(labelCol="y", maxDepth=4)),
    tree_class_thresholds=on(WINE, lambda m: m.DecisionTreeClassifier(labelCol="y", maxDepth=2).setThresholds([0.5, 0.2, 0.9])),
    forest_class=on(WINE, lambda m: m.RandomForestClassifier(labelCol="y", numTrees=10, maxDepth=4, seed=3)),
    one_vs_rest=on(WINE, lambda m: m.OneVsRest(classifier=m.LogisticRegression(regParam=0.1), labelCol="y")),
    one_vs_rest_boosted=on(WINE, lambda m: m.OneVsRest(classifier=m.GBTClassifier(maxIter=2, maxDepth=2), labelCol="y")),
    kmeans=on(WINE, lambda m: [m.StandardScaler(inputCol="features", outputCol="s"), m.KMeans(featuresCol="s", k=4, seed=4)]),
    kmeans_cosine=on(WINE, lambda m: m.KMeans(k=3, seed=4, distanceMeasure="cosine")),
    bisecting=on(WINE, lambda m: [m.StandardScaler(inputCol="features", outputCol="s"), m.BisectingKMeans(featuresCol="s", k=5, seed=4)]),
    bisecting_cosine=on(WINE, lambda m: m.BisectingKMeans(k=4, seed=4, distanceMeasure="cosine")),
)
_add(
    "iris",
    mixture=(on(IRIS, lambda m: m.GaussianMixture(k=3, seed=5)), {"outputs": ["probability"]}),
    bayes_multinomial=(on(IRIS, lambda m: m.NaiveBayes(labelCol="y")), {"outputs": ["rawPrediction"]}),
    bayes_complement=(on(IRIS, lambda m: m.NaiveBayes(labelCol="y", modelType="complement")), {"outputs": ["rawPrediction"]}),
    bayes_gaussian=(on(IRIS, lambda m: m.NaiveBayes(labelCol="y", modelType="gaussian")), {"outputs": ["rawPrediction"]}),
    bayes_bernoulli=lambda m: [
        va(m, IRIS, "raw"),
        m.Binarizer(inputCol="raw", outputCol="features", threshold=2.9),
        m.NaiveBayes(labelCol="y", modelType="bernoulli", thresholds=[0.3, 0.4, 0.5]),
    ],
    nested=lambda m: [m.Pipeline(stages=[va(m, IRIS, "raw"), m.Pipeline(stages=[m.MinMaxScaler(inputCol="raw", outputCol="features")])]),
                      m.LogisticRegression(labelCol="y")],
    leaves=(on(IRIS, lambda m: m.RandomForestClassifier(labelCol="y", numTrees=4, maxDepth=3, seed=1, leafCol="leaf")), {"outputs": ["leaf", "rawPrediction"]}),
    restored_labels=lambda m: [
        m.StringIndexer(inputCol="species", outputCol="label"),
        va(m, IRIS),
        m.RandomForestClassifier(numTrees=5, maxDepth=3, seed=1),
        m.IndexToString(inputCol="prediction", outputCol="answer", labels=["setosa", "versicolor", "virginica"]),
    ],
    stacked=lambda m: [va(m, IRIS, "raw"), m.KMeans(featuresCol="raw", k=3, seed=1, predictionCol="group"),
                       m.OneHotEncoder(inputCol="group", outputCol="g"), va(m, ["g", "raw"]), m.LogisticRegression(labelCol="y", regParam=0.01)],
)  # fmt: skip
_add(
    "cancer",
    logistic=(on(CANCER[:8], lambda m: m.LogisticRegression(labelCol="y", regParam=0.01)), {"outputs": ["rawPrediction"]}),
    logistic_threshold=on(CANCER[:8], lambda m: m.LogisticRegression(labelCol="y", regParam=0.01, threshold=0.3)),
    logistic_thresholds=on(CANCER[:8], lambda m: m.LogisticRegression(labelCol="y", regParam=0.01, thresholds=[0.7, 0.4])),
    logistic_sparse=on(CANCER, lambda m: m.LogisticRegression(labelCol="y", regParam=0.1, elasticNetParam=1.0), handleInvalid="keep"),
    svc=on(CANCER[:8], lambda m: m.LinearSVC(labelCol="y", regParam=0.1, maxIter=20)),
    svc_threshold=on(CANCER[:8], lambda m: m.LinearSVC(labelCol="y", regParam=0.1, maxIter=20, threshold=0.3)),
    boosted_class=on(CANCER, lambda m: m.GBTClassifier(labelCol="y", maxIter=8, maxDepth=3, seed=1)),
    boosted_class_scaled=on(
        CANCER[:6],
        lambda m: [
            m.StandardScaler(inputCol="features", outputCol="s"),
            m.GBTClassifier(featuresCol="s", labelCol="y", maxIter=4, maxDepth=3).setThresholds([0.3, 0.7]),
        ],
    ),
    fm_class=on(CANCER[:5], lambda m: m.FMClassifier(labelCol="y", factorSize=3, maxIter=10, stepSize=0.01, seed=1)),
    cross_validated=lambda m: m.CrossValidator(
        estimator=m.Pipeline(stages=[va(m, CANCER[:5]), m.LogisticRegression(labelCol="y")]),
        estimatorParamMaps=m.ParamGridBuilder().build(),
        evaluator=m.BinaryClassificationEvaluator(labelCol="y"),
        numFolds=2,
    ),
    train_split=on(
        CANCER[:5],
        lambda m: m.TrainValidationSplit(
            estimator=m.DecisionTreeClassifier(labelCol="y", maxDepth=3),
            estimatorParamMaps=m.ParamGridBuilder().build(),
            evaluator=m.BinaryClassificationEvaluator(labelCol="y"),
        ),
    ),
)
_add(
    "diabetes",
    linear=on(DIAB, lambda m: m.LinearRegression(labelCol="y")),
    linear_huber=on(DIAB, lambda m: m.LinearRegression(labelCol="y", loss="huber", maxIter=20)),
    linear_lasso=on(DIAB, lambda m: m.LinearRegression(labelCol="y", regParam=5.0, elasticNetParam=1.0)),
    tree=on(DIAB, lambda m: m.DecisionTreeRegressor(labelCol="y", maxDepth=5)),
    forest=on(DIAB, lambda m: m.RandomForestRegressor(labelCol="y", numTrees=10, maxDepth=4, seed=1)),
    boosted=on(DIAB, lambda m: m.GBTRegressor(labelCol="y", maxIter=8, maxDepth=3, seed=1)),
    fm=on(DIAB, lambda m: m.FMRegressor(labelCol="y", factorSize=2, maxIter=10, seed=1)),
    survival=(on(DIAB, lambda m: m.AFTSurvivalRegression(labelCol="y", censorCol="seen", quantilesCol="q")), {"outputs": ["q"]}),
    tree_vector=lambda m: [m.DecisionTreeRegressor(featuresCol="v", labelCol="y", maxDepth=4)],
)


INF, NAN = float("inf"), float("nan")


# what Spark does with infinities, with what is missing, and with models that learned almost nothing
_add(
    "cars",
    scalers_idle=on(
        CARS,
        lambda m: [
            m.StandardScaler(inputCol="features", outputCol="s", withStd=False),
            m.RobustScaler(inputCol="s", outputCol="o", withScaling=False),
        ],
    ),
    normalizer_max_missing=(
        on(CARS, lambda m: m.Normalizer(inputCol="features", outputCol="o", p=INF), handleInvalid="keep"),
        {"extra": [{"hp": NAN}, {"disp": NAN, "wt": 0.0}]},
    ),
    polynomial_missing=(
        on(CARS, lambda m: m.PolynomialExpansion(inputCol="features", outputCol="o", degree=3), handleInvalid="keep"),
        {"extra": [{"disp": NAN, "qsec": 0.0}, {"qsec": NAN, "hp": 0.0}, {"disp": INF, "hp": 0.0}]},
    ),
    interaction_missing=(
        lambda m: [
            m.StringIndexer(inputCol="gear", outputCol="g"),
            va(m, ["wt", "disp"], "v", handleInvalid="keep"),
            m.Interaction(inputCols=["v", "g", "hp"], outputCol="o"),
        ],
        {"extra": [{"wt": NAN}, {"disp": INF, "hp": 0.0}, {"hp": NAN, "wt": 0.0}, {"hp": INF}]},
    ),
    logistic_one_class=on(CARS, lambda m: m.LogisticRegression(labelCol="one", family="multinomial")),
)
_add(
    "wine",
    logistic_multi_infinite=(
        on(WINE, lambda m: m.LogisticRegression(labelCol="y", regParam=0.1), handleInvalid="keep"),
        {"extra": [{"w0": INF}, {"w0": -INF}, {"w0": INF, "w1": NAN}]},
    ),
    one_vs_rest_missing=on(WINE, lambda m: m.OneVsRest(classifier=m.LogisticRegression(regParam=0.1), labelCol="y"), handleInvalid="keep"),
)
_add(
    "cancer",
    logistic_thresholds_zero=on(CANCER[:4], lambda m: m.LogisticRegression(labelCol="y", regParam=0.1, thresholds=[1.0, 0.0])),
    one_vs_rest_of_two=on(CANCER[:4], lambda m: m.OneVsRest(classifier=m.LinearSVC(maxIter=5), labelCol="y")),
)
_add(
    "diabetes",
    isotonic_element=lambda m: [m.IsotonicRegression(featuresCol="v", labelCol="y", featureIndex=2)],
    assembler_missing_inside=(lambda m: [va(m, ["d0", "v"])], {"extra": [{"v": [NAN, *range(9)]}]}),
)


def glr(label, features=("disp", "wt", "qsec"), **kw):
    return lambda m: [va(m, list(features)), m.GeneralizedLinearRegression(labelCol=label, maxIter=10, **kw)]


_add(
    "cars",
    glr_gaussian=glr("mpg"),
    glr_gaussian_log=glr("mpg", family="gaussian", link="log"),
    glr_gaussian_inverse=glr("mpg", family="gaussian", link="inverse"),
    glr_binomial=glr("am", features=("hp", "qsec"), family="binomial", regParam=0.01),
    glr_binomial_probit=glr("am", features=("hp", "qsec"), family="binomial", link="probit", regParam=0.01),
    glr_binomial_cloglog=glr("am", features=("hp",), family="binomial", link="cloglog", regParam=0.01),
    glr_poisson=glr("carb", family="poisson"),
    glr_poisson_identity=glr("carb", features=("hp",), family="poisson", link="identity"),
    glr_poisson_sqrt=glr("carb", family="poisson", link="sqrt"),
    glr_gamma=glr("mpg", family="gamma"),
    glr_gamma_log=glr("mpg", family="gamma", link="log"),
    glr_gamma_identity=glr("mpg", family="gamma", link="identity"),
    glr_tweedie=glr("mpg", family="tweedie", variancePower=1.5),
    glr_tweedie_log=glr("mpg", family="tweedie", variancePower=1.2, linkPower=0.0),
    glr_tweedie_zero=glr("mpg", family="tweedie", variancePower=0.0),
    glr_offset=(glr("carb", family="poisson", offsetCol="lw", linkPredictionCol="eta"), {"outputs": ["eta"]}),
)
_add(
    "credit",
    credit_boosted=credit(lambda m: [m.GBTClassifier(maxIter=8, maxDepth=3, seed=1), restored(m)]),
    credit_logistic=credit(lambda m: [m.LogisticRegression(regParam=0.01), restored(m)], keep="skip"),
    credit_forest=credit(lambda m: m.RandomForestClassifier(numTrees=8, maxDepth=5, seed=1), keep="error"),
)


def counted(*stages, **kw):
    """Tokens in `w`, then their counts."""

    def build(m):
        return [*(make(m) for make in stages), m.CountVectorizer(inputCol="w", outputCol="tf", **kw)]

    return build


def tokens(m):
    return m.Tokenizer(inputCol="line", outputCol="w")


def regex(**kw):
    return lambda m: m.RegexTokenizer(inputCol="line", outputCol="w", **kw)


_add(
    "texts",
    words=(counted(regex()), {"extra": ODD_LINES}),
    words_tokenizer=(lambda m: [tokens(m), m.CountVectorizerModel.from_vocabulary(["the", "of", "km", "i", "straße", "a\u00a0b"], "w", "tf")], {"extra": ODD_LINES}),
    words_ascii=(counted(regex(pattern="\\W"), minDF=2.0), {"extra": ODD_LINES}),
    words_found=(counted(regex(pattern="[a-z0-9]+", gaps=False, minTokenLength=3), binary=True), {"extra": ODD_LINES}),
    words_as_written=(counted(regex(pattern=",", toLowercase=False), minTF=2.0), {"extra": ODD_LINES}),
    words_stopped=(
        lambda m: [
            m.RegexTokenizer(inputCol="line", outputCol="t", pattern="\\W+"),
            m.StopWordsRemover(inputCol="t", outputCol="w"),
            m.CountVectorizer(inputCol="w", outputCol="tf", minTF=2.0),
            m.IDF(inputCol="tf", outputCol="o"),
        ],
        {"extra": ODD_LINES},
    ),
    words_runs=(
        lambda m: [
            m.RegexTokenizer(inputCol="line", outputCol="t", pattern="\\W+", minTokenLength=2),
            m.StopWordsRemover(inputCol="t", outputCol="s"),
            m.NGram(inputCol="s", outputCol="w", n=2),
            m.CountVectorizer(inputCol="w", outputCol="tf"),
        ],
        {"extra": ODD_LINES},
    ),
    words_classified=lambda m: [
        regex()(m),
        m.StopWordsRemover(inputCol="w", outputCol="s"),
        m.CountVectorizer(inputCol="s", outputCol="tf", vocabSize=200),
        m.IDF(inputCol="tf", outputCol="features"),
        m.LogisticRegression(labelCol="long", regParam=0.1),
    ],
)  # fmt: skip

# letters whose lower case needs more than one look, and lengths around the hash's blocks of four bytes
HASHED_LINES = [
    *ODD_LINES, *({"line": v} for v in ("   ", " a", "a ", "a  b   c ", "\u03a3", "\u03a3\u03a3 \u0391\u03a3", "\u0391\u03a3\u0391 \u03a3\u0391 \u03a3", "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 3)),
    *({"line": ("\u00c4bc\u65e5\U00010400"[i % 5] * i) + " x" * i} for i in range(1, 10)),
]  # fmt: skip


def hashed(*before, size=64, **kw):
    return lambda m: [*(b(m) for b in before), m.HashingTF(inputCol="w", outputCol="tf", numFeatures=size, **kw)]


_add(
    "texts",
    hashed=(hashed(tokens), {"extra": HASHED_LINES}),
    hashed_default=(hashed(tokens, size=1 << 18), {"extra": HASHED_LINES[:12]}),
    hashed_binary=(hashed(regex(pattern="\\W"), size=1000, binary=True), {"extra": HASHED_LINES}),
    hashed_found=(hashed(regex(pattern="[a-z0-9]+", gaps=False, minTokenLength=3)), {"extra": HASHED_LINES}),
    hashed_as_written=(hashed(regex(pattern=",", toLowercase=False), size=7), {"extra": HASHED_LINES}),
    hashed_runs=(
        hashed(
            lambda m: m.RegexTokenizer(inputCol="line", outputCol="t"),
            lambda m: m.StopWordsRemover(inputCol="t", outputCol="s"),
            lambda m: m.NGram(inputCol="s", outputCol="w", n=3),
        ),
        {"extra": HASHED_LINES},
    ),
    hashed_stopped=(
        hashed(
            lambda m: m.Tokenizer(inputCol="line", outputCol="t"),
            lambda m: m.StopWordsRemover(inputCol="t", outputCol="w", stopWords=["the", "", "of"]),
        ),
        {"extra": HASHED_LINES},
    ),
    hashed_classified=(
        lambda m: [tokens(m), m.HashingTF(inputCol="w", outputCol="tf", numFeatures=64), m.IDF(inputCol="tf", outputCol="features"),
                   m.LogisticRegression(labelCol="long", regParam=0.1)],
        {"extra": HASHED_LINES},
    ),
)  # fmt: skip

# stages without an ONNX form: refused by name, answered by Spark in a worker
NATIVE: dict[str, tuple] = {
    "runs-of-empty-words": ("texts", lambda m: [m.Tokenizer(inputCol="line", outputCol="t"), m.NGram(inputCol="t", outputCol="w"),
                            m.CountVectorizer(inputCol="w", outputCol="tf")], {"extra": ODD_LINES}),
    "embedded-words": ("texts", lambda m: [tokens(m), m.Word2Vec(inputCol="w", outputCol="o", vectorSize=4, seed=1)], {}),
    "topics": ("texts", lambda m: [regex()(m), m.CountVectorizer(inputCol="w", outputCol="features", vocabSize=50), m.LDA(k=3, seed=1, maxIter=3)], {}),
}  # fmt: skip

# also given to onnxmltools, whose answers are kept beside Spark's
RIVALS = ("tree-indexed", "glr-poisson")

# stages that raise in Spark for some rows: (data, stages, rows that raise, one a run)
RAISES: dict[str, tuple] = {
    "one-hot-unseen": ("cars", lambda m: [m.OneHotEncoder(inputCol="gear", outputCol="o")], [{"gear": 9.0}, {"gear": -1.0}]),
    "bucketizer-bounds": ("cars", lambda m: [m.Bucketizer(splits=[1.0, 3.0, 6.0], inputCol="wt", outputCol="o", handleInvalid="keep")], [{"wt": 0.5}, {"wt": 7.0}]),
    "vector-indexer-unseen": ("cars", on(["cyl", "wt"], lambda m: m.VectorIndexer(inputCol="features", outputCol="o", maxCategories=4)), [{"cyl": 5.0, "wt": 3.0}]),
    "indexer-unseen-number": ("cars", lambda m: [m.StringIndexer(inputCol="cyl", outputCol="o")], [{"cyl": 5.0}]),
    "bayes-negative": ("cars", on(["wt", "hp"], lambda m: m.NaiveBayes(labelCol="am")), [{"wt": -1.0, "hp": 3.0}]),
    "cosine-zero": ("cars", on(["wt", "hp"], lambda m: m.KMeans(k=2, seed=1, distanceMeasure="cosine")), [{"wt": 0.0, "hp": 0.0}]),
    "kmeans-missing": ("cars", on(["wt", "hp"], lambda m: m.KMeans(k=2, seed=1), handleInvalid="keep"), [{"wt": NAN, "hp": 3.0}, {"wt": 1.0, "hp": NAN}]),
    "bisecting-missing": ("cars", on(["wt", "hp"], lambda m: m.BisectingKMeans(k=3, seed=1), handleInvalid="keep"), [{"wt": NAN, "hp": 3.0}]),
}  # fmt: skip
