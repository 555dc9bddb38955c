// The model as one that answers; what it does not know (rates) it says.
#pragma once

#include "model.h"

namespace fskernel::probe {

class ModelMachine : public Machine {
 public:
  Facts facts() override;
  Bytes ask(const Fragments&) override;
  Bytes ask(const Transposed&) override;
  Bytes ask(const Product&) override;
  Bytes ask(const Im2col&) override;
  Bytes ask(const Box&) override;
  Bytes ask(const StoreBox&) override;
  Bytes ask(const Bulk&) override;
  Bytes ask(const Remote&) override;
  Speed ask(const Rate&) override;
};

}  // namespace fskernel::probe
