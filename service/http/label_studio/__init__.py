"""Label Studio's protocol for ML backends (https://labelstud.io/guide/ml_create): the model labels its pictures."""
