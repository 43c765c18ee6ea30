"""Model authoring on a build machine: data, training aids, int8 conversion; no running device imports it."""
