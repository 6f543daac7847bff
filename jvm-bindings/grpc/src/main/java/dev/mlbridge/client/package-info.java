/** Models served elsewhere, opened by {@code Models.load("grpc://host:port/model")}. Internal. */
package dev.mlbridge.client;
