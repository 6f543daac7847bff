#include "served.h"

#include <limits>

namespace mlb {
namespace {

std::string text(const Rcpp::List& from, const char* name) { return Rcpp::as<std::string>(from[name]); }
bool truth(const Rcpp::List& from, const char* name) { return Rcpp::as<bool>(from[name]); }

Shape shape_of(const Rcpp::List& tensor) {
  Shape out;
  for (const double size : Rcpp::as<std::vector<double>>(tensor["shape"])) out.push_back(static_cast<std::int64_t>(size));
  return out;
}

template <class Tensor>
void tell(const Rcpp::List& tensor, Tensor* metadata) {
  metadata->set_name(text(tensor, "name"));
  metadata->set_datatype(text(tensor, "datatype"));
  for (const auto size : shape_of(tensor)) metadata->add_shape(size);
}

template <class Tensor>
void configure(const Rcpp::List& tensor, bool batched, Tensor* config) {
  const auto datatype = text(tensor, "datatype");
  inference::DataType type = inference::TYPE_INVALID;
  inference::DataType_Parse(datatype == "BYTES" ? "TYPE_STRING" : "TYPE_" + datatype, &type);
  config->set_name(text(tensor, "name"));
  config->set_data_type(type);
  const auto shape = shape_of(tensor);
  for (std::size_t a = batched ? 1 : 0; a < shape.size(); ++a) config->add_dims(shape[a]);
}

std::unique_ptr<Served> served_of(const Rcpp::List& model) {
  auto served = std::make_unique<Served>();
  served->name = text(model, "name");
  served->version = text(model, "version");
  served->batched = truth(model, "batched");
  served->always_raw = truth(model, "always_raw");
  auto& metadata = served->metadata;
  metadata.set_name(served->name);
  metadata.set_platform(text(model, "platform"));
  for (const auto& version : Rcpp::as<std::vector<std::string>>(model["versions"])) metadata.add_versions(version);
  auto& config = *served->config.mutable_config();
  config.set_name(served->name);
  config.set_platform(metadata.platform());
  config.set_backend(text(model, "route"));
  config.set_max_batch_size(served->batched ? std::numeric_limits<std::int32_t>::max() : 0);  // as many rows as a message holds
  config.mutable_model_transaction_policy();
  for (const auto& one : Rcpp::List(model["inputs"])) {
    const Rcpp::List tensor(one);
    tell(tensor, metadata.add_inputs());
    configure(tensor, served->batched, config.add_input());
    served->inputs.push_back({text(tensor, "name"), text(tensor, "own"), shape_of(tensor), truth(tensor, "by_rows"), truth(tensor, "allow"),
                              Rcpp::as<std::vector<int>>(tensor["tops"])});
    served->input_names.push_back(Rcpp::String(text(tensor, "name"), CE_UTF8));
  }
  for (const auto& one : Rcpp::List(model["outputs"])) {
    const Rcpp::List tensor(one);
    tell(tensor, metadata.add_outputs());
    configure(tensor, served->batched, config.add_output());
    const Target target{text(tensor, "name"), text(tensor, "datatype"), static_cast<int>(shape_of(tensor).size()), true};
    served->outputs.push_back({target, truth(tensor, "allow"), truth(tensor, "text"), truth(tensor, "categorical"),
                               Rcpp::as<std::vector<std::string>>(tensor["levels"])});
    served->output_names.push_back(Rcpp::String(target.name, CE_UTF8));
  }
  MARK_NOT_MUTABLE(served->input_names);  // every request gets these
  MARK_NOT_MUTABLE(served->output_names);
  auto& description = served->description;
  description.set_name(served->name);
  description.set_version(served->version);
  description.set_signature(text(model, "signature"));
  description.set_route(text(model, "route"));
  description.set_why(text(model, "why"));
  description.set_device(text(model, "device"));
  return served;
}

}  // namespace

Models::Models(const Rcpp::List& told) {
  for (const auto& one : told) {
    const Rcpp::List model(one);
    all_.push_back(served_of(model));
    all_.back()->place = static_cast<int>(all_.size());
    if (truth(model, "is_default")) defaults_[all_.back()->name] = all_.back().get();
  }
}

const Served* Models::find(const std::string& name, const std::string& version, Reply* reply) const {
  const auto known = defaults_.find(name);
  if (known == defaults_.end()) {
    *reply = not_found("there is no model " + quoted(name));
    return nullptr;
  }
  if (version.empty()) return known->second;
  for (const auto& served : all_)
    if (served->name == name && served->version == version) return served.get();
  *reply = not_found("the model " + quoted(name) + " has no version " + quoted(version));
  return nullptr;
}

}  // namespace mlb
