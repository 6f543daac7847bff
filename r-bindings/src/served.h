// What a host serves: each version of each model, told by R once. gRPC's threads read it, and write its statistics.
#pragma once

#include <Rcpp.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "inference.pb.h"
#include "mlbridge.pb.h"
#include "replies.h"
#include "statistics.h"
#include "tensors.h"

namespace mlb {

// What an input is in a usual request: its own datatype, codes for levels.
struct Input {
  std::string name, datatype;
  Shape shape;            // -1 where any size will do
  bool by_rows;           // its first axis is the rows
  bool allows_missing;
  std::vector<int> tops;  // the greatest code of each column; empty where it holds no codes
};

struct Output {
  Target target;
  bool allows_missing, text, categorical;
  std::vector<std::string> levels;  // of a label whose levels are text
};

struct Served {
  int place;  // in R's list, from 1
  std::string name, version;
  inference::ModelMetadataResponse metadata;
  inference::ModelConfigResponse config;
  mlbridge::v1::DescribeResponse description;
  std::vector<Input> inputs;
  std::vector<Output> outputs;
  Rcpp::CharacterVector input_names, output_names;
  bool batched, always_raw;
  mutable Statistics statistics;
};

class Models {
 public:
  explicit Models(const Rcpp::List& told);

  // Null, with the reply, where there is no such model or version; an empty version is the default.
  const Served* find(const std::string& name, const std::string& version, Reply* reply) const;
  const std::vector<std::unique_ptr<Served>>& all() const { return all_; }

 private:
  std::vector<std::unique_ptr<Served>> all_;
  std::map<std::string, const Served*> defaults_;
};

}  // namespace mlb
