"""Cell physics as differentiable steps."""
