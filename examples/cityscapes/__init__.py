"""The CityScapes scene-understanding system of the paper: data, network, training, figures."""
