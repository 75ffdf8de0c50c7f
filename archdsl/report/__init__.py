"""What people read: tables, the picture of the front, CSV. Facts first, drawings second."""
