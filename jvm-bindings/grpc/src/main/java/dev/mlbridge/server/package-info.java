/** Hosts models on the Open Inference Protocol over gRPC: {@link dev.mlbridge.server.MlbridgeServer}. */
package dev.mlbridge.server;
