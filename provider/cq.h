// Making a CQ is the same work for the plain and the extended call.
#pragma once

#include "objects.h"

namespace tbt::provider {

struct CqRequest {
  ibv_context* context = nullptr;
  int64_t entries = 0;
  void* cq_context = nullptr;
  ibv_comp_channel* channel = nullptr;
  int64_t comp_vector = 0;
};

// nullptr with errno.
Cq* make_cq(const CqRequest& request) noexcept;

}  // namespace tbt::provider
