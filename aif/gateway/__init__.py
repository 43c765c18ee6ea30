"""Views of a running system (REST, dashboard, LwM2M). Views show; they decide nothing."""
