//! One in-process recommender: bundle, taste, ranking and experiments make an answer.
