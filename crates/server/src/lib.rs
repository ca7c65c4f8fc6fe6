//! The gRPC server: services, version manager, metrics, admin listener.
