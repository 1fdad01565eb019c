// <infiniband/verbs.h> as the rest of provider/ sees it: the inline wrappers that hide an exported
// function of the same name are removed, because here is where those functions are defined.
#pragma once

#include <infiniband/verbs.h>

#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

// An exported verb. The version script names each of them once more.
#define TBT_VERB extern "C" __attribute__((visibility("default")))
