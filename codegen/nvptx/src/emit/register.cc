// Registers the two dialects that kernels are written in and their translations to LLVM IR. Registering all of MLIR's
// dialects, as its C interface would, makes the binary three times as large. MLIR's own headers for this take half a minute
// to compile; its C interface has the dialects, and the translations are declared here as those headers do.
#include "mlir-c/Dialect/LLVM.h"
#include "mlir-c/Dialect/NVVM.h"
#include "mlir-c/IR.h"

namespace mlir {
class DialectRegistry;
void registerBuiltinDialectTranslation(DialectRegistry &registry);
void registerLLVMDialectTranslation(DialectRegistry &registry);
void registerNVVMDialectTranslation(DialectRegistry &registry);
} // namespace mlir

extern "C" void sinterRegisterDialects(MlirContext context) {
  MlirDialectRegistry registry = mlirDialectRegistryCreate();
  mlirDialectHandleInsertDialect(mlirGetDialectHandle__llvm__(), registry);
  mlirDialectHandleInsertDialect(mlirGetDialectHandle__nvvm__(), registry);
  auto &translations = *static_cast<mlir::DialectRegistry *>(registry.ptr);
  mlir::registerBuiltinDialectTranslation(translations);
  mlir::registerLLVMDialectTranslation(translations);
  mlir::registerNVVMDialectTranslation(translations);
  mlirContextAppendDialectRegistry(context, registry);
  mlirDialectRegistryDestroy(registry);
  mlirContextLoadAllAvailableDialects(context);
}
