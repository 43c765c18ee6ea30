"""The ``EventSink`` AIM: events side by side with what the recording says happened."""
