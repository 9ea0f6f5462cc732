"""What the user wrote: the sweep file and the command's options, as typed values."""
